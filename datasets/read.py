"""`read_frames`: any supported file to frames, with a report of what was read from which key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mlip.datasets.checks import check_frame, fault_of
from mlip.datasets.formats import detect_format, format_named
from mlip.datasets.frames import Frame
from mlip.datasets.labels import FrameList, LabelKeys, frame_of_record, require_keys
from mlip.datasets.report import ReadReport
from mlip.errors import InputError


def iter_frames(
    path: str | Path,
    *,
    keys: LabelKeys | None = None,
    format: str | None = None,
    report: ReadReport | None = None,
    check: bool = True,
) -> Iterator[Frame]:
    """Frames of a file, one at a time.

    Args:
        path: A file of any of `formats.FORMATS`.
        keys: Names of the labels; by default the usual ones.
        format: Name in that table; by default from ending and content.
        report: Is filled while reading.
        check: Refuse frames that no potential can use (`check_frame`).

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file cannot be read; names file, frame and reason.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    keys = keys if keys is not None else LabelKeys()
    report = report if report is not None else ReadReport()
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    report.path, report.format = str(path), format or detect_format(path)
    start = report.frames
    for i, frame in enumerate(_reader(report.format)(path, keys, report)):
        if check:
            check_frame(frame, where=f"frame {i} of {path}")
        yield frame
    if report.frames == start and not report.skipped:
        raise InputError(f"{path}: holds no frames")
    require_keys(keys, report)


def read_frames(
    path: str | Path,
    *,
    keys: LabelKeys | None = None,
    format: str | None = None,
    index: str | int | slice = ":",
    check: bool = True,
) -> FrameList:
    """All frames of a file, or those of `index`, as a list that carries its `report`.

    Args:
        path: See `iter_frames`.
        keys: Names of the labels; by default the usual ones.
        format: Overrules the file's ending.
        index: `":"`, `"10:20"`, `"::5"`, `"-1"`, a number or a slice, as in ASE.
        check: Refuse frames that no potential can use.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file cannot be read, or no frame has a key that was named.
    """
    chosen = _slice(index)
    report = ReadReport()
    frames = iter_frames(path, keys=keys, format=format, report=report, check=check)
    numbers = (chosen.start, chosen.stop, chosen.step)
    if all(n is None or n >= 0 for n in numbers):
        kept = list(islice(frames, *numbers))
    else:
        kept = list(frames)[chosen]
    if report.frames:
        require_keys(keys or LabelKeys(), report)
    if not report.frames:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in report.skipped.items())
        raise InputError(f"{path}: holds no frames that are of use; skipped: {reasons}")
    if not kept:
        raise InputError(f"{path}: index {index!r} selects none of {report.frames} frames")
    return FrameList(kept, report=report)


def read_isolated_atoms(path: str | Path, *, keys: LabelKeys | None = None) -> dict[int, float]:
    """Energy of each isolated atom, eV, by atomic number.

    Frames marked `config_type=IsolatedAtom` count; if none is marked, all frames of one atom without
    periodicity.

    Args:
        path: See `iter_frames`.
        keys: Names of the labels, of which that of the energy counts, and that where formats fix no names.

    Raises:
        InputError: There are none, one has no energy, or two of an element differ by more than 1 µeV.
    """
    if keys is not None:
        named = Path(path).is_file() and format_named(detect_format(Path(path))).named
        keys = LabelKeys(energy=keys.energy if named else None)
    frames = list(iter_frames(path, keys=keys))
    chosen = [f for f in frames if f.is_isolated_atom]
    if not chosen:
        chosen = [f for f in frames if len(f) == 1 and not f.pbc.any()]
    if not chosen:
        raise InputError(
            f"{path}: has no isolated atoms (frames of one atom, marked config_type=IsolatedAtom)"
        )
    return isolated_atom_energies(chosen, where=str(path))


def isolated_atom_energies(frames: list[Frame], *, where: str) -> dict[int, float]:
    """Energy by atomic number of one-atom frames, eV, in ascending order.

    Raises:
        InputError: One has no energy, or two of an element differ by more than 1 µeV.
    """
    energies: dict[int, float] = {}
    for frame in frames:
        z = int(frame.atomic_numbers[0])
        if frame.energy is None:
            raise InputError(f"{where}: the isolated {frame.formula} atom has no energy")
        if abs(energies.setdefault(z, frame.energy) - frame.energy) > 1e-6:
            raise InputError(
                f"{where}: two isolated {frame.formula} atoms have energies "
                f"{energies[z]} and {frame.energy} eV"
            )
    return dict(sorted(energies.items()))


def _slice(index: str | int | slice) -> slice:
    if isinstance(index, slice):
        return index
    try:
        if isinstance(index, str) and ":" in index:
            parts = [int(p) if p.strip() else None for p in index.split(":")]
            if len(parts) <= 3:
                return slice(*parts)
        else:
            i = int(index)
            return slice(i, i + 1 if i != -1 else None)
    except ValueError:
        pass
    raise InputError(f"`index` is {index!r} but must be a number or start:stop:step")


def _reader(format: str) -> Callable[[Path, LabelKeys, ReadReport], Iterator[Frame]]:
    """Reader of a format; imported only when it is needed."""
    known = format_named(format)
    source = known.load()

    def by_name(path: Path, keys: LabelKeys, report: ReadReport) -> Iterator[Frame]:
        for raw in source(path):
            yield frame_of_record(raw, keys=keys, report=report)

    def fixed(path: Path, keys: LabelKeys, report: ReadReport) -> Iterator[Frame]:
        if keys != LabelKeys():
            raise InputError(f"{path}: the names of labels are fixed in the format {format}; give none")
        for frame in source(path, report):
            fault = fault_of(frame) if known.published else None
            if fault is not None:
                report.skipped[fault.kind] += 1
                continue
            report.count(frame)
            yield frame

    return by_name if known.named else fixed
