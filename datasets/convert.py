"""`convert`: files of any format into one, streaming; into HDF5 also resumable.

The HDF5 file keeps, as its provenance, which inputs it holds: name, fingerprint, number of frames, what was
read from where and what was skipped. An input that is there is not read again; one that was interrupted is
read up to where it stopped, its frames compared with those stored, and goes on from there. Of one that
cannot be read to its end, nothing stays.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets import h5_schema as schema
from mlip.datasets.digest import frame_digest
from mlip.datasets.formats import detect_format, format_named
from mlip.datasets.frames import Frame
from mlip.datasets.h5_reader import H5Dataset
from mlip.datasets.h5_writer import H5Writer
from mlip.datasets.labels import LabelKeys
from mlip.datasets.read import iter_frames
from mlip.datasets.report import LABELS, ReadReport
from mlip.datasets.write import write_frames
from mlip.errors import InputError

COMMIT_SECONDS = 20.0
COMMIT_FRAMES = 50_000
_SAMPLES, _SAMPLE_BYTES = 32, 1 << 16
_DATABASES = (".aselmdb", ".lmdb", ".mdb")


@dataclass
class Conversion:
    """What a file holds after a conversion.

    Attributes:
        out: The file.
        frames: In the file.
        labelled: Frames with each label.
        belonging: Number of groups, molecules, reactions and trajectories; only known of HDF5.
        skipped: Records that gave no frame, by reason.
        sources: For each label, what it was read from, with units.
        notes: Remarks of the readers.
        dropped: What the inputs have and the file does not, by name.
        inputs: Files that it was made of, and how many of them were in it before.
        interrupted: Whether it was stopped before the end.
    """

    out: str
    frames: int = 0
    labelled: Counter[str] = field(default_factory=Counter)
    belonging: dict[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    inputs: int = 0
    already: int = 0
    interrupted: bool = False

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add what one input gave (`facts_of`)."""
        self.inputs += 1
        self.frames += facts["frames"]
        for name in ("labelled", "skipped", "notes", "dropped"):
            getattr(self, name).update(facts[name])
        for label, counts in facts["sources"].items():
            self.sources.setdefault(label, Counter()).update(counts)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = {
            f.name: dict(v) if isinstance(v := getattr(self, f.name), Counter) else v for f in fields(self)
        }
        return {**values, "sources": {label: dict(counts) for label, counts in self.sources.items()}}


def convert(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    keys: LabelKeys | None = None,
    attributes: Mapping[str, str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda frames: None,
) -> Conversion:
    """Put the frames of files, or of all files in folders, into one file.

    Into HDF5 a call may be repeated after an interruption, or with further inputs: nothing is read twice into
    the file. Other formats are written whole, or not at all.

    Args:
        inputs: Files and folders.
        out: `.h5`, or whatever `write_frames` writes.
        format: Of the inputs; by default from each one's ending and content.
        keys: Names of the labels.
        attributes: `level_of_theory`, `source`, `licence`; by default those of the data set, where known.
        stop: Asked after every frame; True ends the conversion with what there is, other formats without a
            file.
        progress: Told the number of frames now and then.

    Raises:
        FileNotFoundError: An input is missing.
        InputError: An input cannot be read, `out` was not made by a conversion, levels of theory differ, or
            an input that is there already was read with other names of labels or in another format.
    """
    out = Path(out)
    files = _expanded(inputs)
    if any(out.exists() and out.samefile(f) for f in files):
        raise InputError(f"{out}: is one of the inputs; give another name")
    job = _Job(out, files, format, keys or LabelKeys(), dict(attributes or {}), stop, progress)
    return job.into_hdf5() if out.suffix.lower() in (".h5", ".hdf5") else job.into_other()


class _Stopped(Exception):
    """The caller wishes to stop."""


@dataclass
class _Job:
    out: Path
    files: list[Path]
    format: str | None
    keys: LabelKeys
    attributes: dict[str, str]
    stop: Callable[[], bool]
    progress: Callable[[int], None]
    committed: float = 0.0  # when
    written: int = 0  # frames since then

    def read(self, path: Path, report: ReadReport) -> Iterator[Frame]:
        """Frames of one input."""
        return iter_frames(path, keys=self.keys, format=self.format, report=report)

    def into_other(self) -> Conversion:
        result = Conversion(str(self.out))
        reports = [ReadReport() for _ in self.files]

        def frames() -> Iterator[Frame]:
            for path, report in zip(self.files, reports, strict=True):
                for frame in self.read(path, report):
                    yield frame
                    if self.stop():
                        raise _Stopped

        try:
            write_frames(self.out, frames())
        except _Stopped:
            return Conversion(str(self.out), interrupted=True)
        for report in reports:
            result.add(facts_of(report))
        if self.out.suffix != ".db" and result.labelled["hessian"]:
            result.dropped["hessian"] += result.labelled["hessian"]
        return result

    def into_hdf5(self) -> Conversion:
        known = self._inputs_there()
        begun = next((facts for facts in known if not facts["complete"]), None)
        complete = {facts["fingerprint"]: facts for facts in known if facts["complete"]}
        prints = {path: fingerprint(path) for path in self.files}
        waiting = [path for path in self.files if prints[path] not in complete]
        for path in self.files:
            if prints[path] in complete:
                self._require_alike(complete[prints[path]])
        result = Conversion(str(self.out), already=len(self.files) - len(waiting))
        if begun is not None:
            waiting = self._begun_first(waiting, prints, begun)
        if waiting:
            with H5Writer(self.out, append=True, attributes=self._attributes(waiting[0])) as writer:
                writer.provenance["inputs"] = known
                result.interrupted = not self._add(writer, waiting, prints)
        for facts in known:
            result.add(facts)
        data = H5Dataset(self.out)
        for key in schema.KEYS:
            index = data.index_by(key)
            result.belonging[key] = len(np.unique(index[index >= 0]))
        return result

    def _inputs_there(self) -> list[dict[str, Any]]:
        if not self.out.exists():
            return []
        data = H5Dataset(self.out)
        inputs = data.provenance().get("inputs")
        if inputs is None and len(data):
            raise InputError(
                f"{self.out}: exists and was not made by a conversion; give another name, or remove it"
            )
        schema.require_attributes(self.out, data.attributes, _without_empty(self.attributes))
        return list(inputs or [])

    def _require_alike(self, facts: Mapping[str, Any]) -> None:
        """See that an input that is there was read as the caller wishes."""
        wishes: dict[str, tuple[str, Any]] = {"keys": ("names of labels", _named(self.keys))}
        if self.format is not None:
            wishes["format"] = ("format", self.format)
        for name, (words, wish) in wishes.items():
            if facts[name] != wish:
                raise InputError(
                    f"{self.out}: holds {facts['name']} with other {words}: {facts[name] or 'none'}, "
                    f"not {wish or 'none'}; ask for the same, or write another file"
                )

    def _begun_first(
        self, waiting: list[Path], prints: Mapping[Path, str], begun: Mapping[str, Any]
    ) -> list[Path]:
        """The input that was interrupted, by content or else by name, before the others."""
        same = [p for p in waiting if prints[p] == begun["fingerprint"]] or [
            p for p in waiting if p.name == begun["name"]
        ]
        if not same:
            raise InputError(
                f"{self.out}: the conversion of {begun['name']} into it was interrupted; give that file, "
                f"too, or remove {self.out} to begin anew"
            )
        self._require_alike(begun)
        return [same[0], *(p for p in waiting if p != same[0])]

    def _attributes(self, first: Path) -> dict[str, str]:
        """What the file says about all of its frames; of an existing one, what must agree with it."""
        given = _without_empty(self.attributes)
        return given if self.out.exists() else {**self._own_attributes(first), **given}

    def _own_attributes(self, path: Path) -> dict[str, str]:
        """What is known of the frames of one input."""
        name = self.format or detect_format(path)
        known = format_named(name)
        own = {"level_of_theory": known.level_of_theory, "licence": known.licence, "source": path.name}
        if name == "hdf5":
            there = H5Dataset(path).attributes
            own |= {k: str(there[k]) for k in schema.TEXT_ATTRIBUTES if there.get(k)}
        return own

    def _check_level(self, writer: H5Writer, path: Path) -> None:
        """Refuse frames of another level of theory, unless the caller names the one for all."""
        there = writer.attributes["level_of_theory"]
        own = self.attributes.get("level_of_theory") or self._own_attributes(path)["level_of_theory"]
        if own and own != there:
            raise InputError(
                f"{path}: is of the level of theory {own!r}, {self.out} of {there or 'an unknown one'!r}; "
                "give another file, or name one for both with --level-of-theory"
            )

    def _add(self, writer: H5Writer, waiting: Sequence[Path], prints: Mapping[Path, str]) -> bool:
        """Add inputs; False if it was stopped. Whatever goes wrong, what has been read is kept."""
        entries: list[dict[str, Any]] = writer.provenance["inputs"]
        complete = {facts["fingerprint"] for facts in entries if facts["complete"]}
        self.committed = time.monotonic()
        try:
            for path in waiting:
                if prints[path] in complete:
                    continue  # the same content twice
                if not self._append(writer, path, prints[path]):
                    return False
                complete.add(prints[path])
        except BaseException:
            if entries or self.out.exists():
                writer.commit()
            raise
        return True

    def _append(self, writer: H5Writer, path: Path, print_: str) -> bool:
        """Add one input, or what is missing of it; False if it was stopped. Nothing stays of one that cannot
        be read to its end."""
        self._check_level(writer, path)
        entries: list[dict[str, Any]] = writer.provenance["inputs"]
        begun = next((facts["frames"] for facts in entries[-1:] if not facts["complete"]), None)
        place, start = len(entries) - (begun is not None), len(writer) - (begun or 0)
        stored = H5Dataset(self.out).checksums()[start:] if begun else []
        report, seen = ReadReport(), 0

        def note(*, complete: bool = False) -> None:
            if complete or seen >= max(1, len(stored)):  # else what is said of the stored frames stays
                facts = {"name": path.name, "fingerprint": print_, "keys": _named(self.keys)}
                entries[place:] = [{**facts, **facts_of(report), "frames": seen, "complete": complete}]

        try:
            for frame in self.read(path, report):
                if seen >= len(stored):
                    writer.write(frame)
                elif frame_digest(frame) != stored[seen]:
                    raise InputError(
                        f"{path}: frame {seen} is not the one that {self.out} holds of it; "
                        f"remove {self.out} to begin anew"
                    )
                seen += 1
                if self.stop():
                    note()
                    return False
                if seen > len(stored) and self._commit_is_due():
                    note()
                    writer.commit()
                if seen % 1000 == 0:
                    self.progress(len(writer))
            if seen < len(stored):
                raise InputError(f"{path}: holds fewer frames than {self.out} has of it")
        except BaseException as error:
            if isinstance(error, InputError) and seen >= len(stored):
                seen = 0
                del entries[place:], stored[:]
            note()
            writer.truncate(start + max(seen, len(stored)))
            raise
        note(complete=True)
        self.progress(len(writer))
        return True

    def _commit_is_due(self) -> bool:
        """Counts one more frame, and begins anew when it says so."""
        self.written += 1
        now = time.monotonic()
        if self.written < COMMIT_FRAMES and now - self.committed <= COMMIT_SECONDS:
            return False
        self.written, self.committed = 0, now
        return True


def facts_of(report: ReadReport) -> dict[str, Any]:
    """What the provenance keeps of a report."""
    return {
        "format": report.format,
        "frames": report.frames,
        "labelled": {k: report.labelled[k] for k in LABELS},
        "sources": {k: dict(v) for k, v in report.sources.items()},
        "skipped": dict(report.skipped),
        "notes": dict(report.notes),
        "dropped": dict(report.dropped),
    }


def fingerprint(path: Path) -> str:
    """Of size and 32 pieces of a file, spread evenly: cheap, and enough to know it again."""
    size = path.stat().st_size
    h = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as stream:
        for start in sorted({k * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1) for k in range(_SAMPLES)}):
            stream.seek(start)
            h.update(stream.read(_SAMPLE_BYTES))
    return h.hexdigest()


def _without_empty(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}


def _named(keys: LabelKeys) -> dict[str, str]:
    """The names that were given."""
    return {k: v for k, v in asdict(keys).items() if v is not None}


def _expanded(inputs: Sequence[str | Path]) -> list[Path]:
    """Files, with those of folders in the order of their numbers."""
    files: list[Path] = []
    for path in map(Path, inputs):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        found = _inside(path) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path}: holds no file of a known format")
        files += found
    if not files:
        raise InputError("no inputs were given")
    return files


def _inside(folder: Path) -> list[Path]:
    """Files of a folder and those below: databases if there are any, else all of a known format."""
    every = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    every.sort(key=lambda p: [(int(s), "") if s.isdigit() else (-1, s) for s in re.split(r"(\d+)", str(p))])
    databases = [p for p in every if p.suffix in _DATABASES]
    return databases or [p for p in every if _known(p)]


def _known(path: Path) -> bool:
    try:
        detect_format(path)
    except InputError:
        return False
    return True
