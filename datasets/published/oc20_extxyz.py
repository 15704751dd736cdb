"""OC20 S2EF as published: pairs of `k.extxyz.xz` and `k.txt.xz`, 5,000 frames each.

Line i of the text is `random<sid>,frame<fid>,<reference>`: system, step of its relaxation, and the energy
of slab and gas. `energy` in the extended XYZ is the total energy, which is the label; the adsorption energy
is `energy` less the reference, which is kept in `info` as `reference_energy`. Forces are those stored, also
of fixed atoms (`move_mask`).

Source: Open-Catalyst-Project/ocp `scripts/preprocess_ef.py`, its tutorials. CC-BY-4.0.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mlip.datasets.extxyz import iter_extxyz
from mlip.datasets.frames import Frame
from mlip.datasets.labels import LabelKeys, frame_of_record
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

_LINE = re.compile(r"(random\d+),frame(\d+),(\S+)")
_KEYS = LabelKeys(energy="energy", forces="forces")


def companion(path: Path) -> Path | None:
    """The text file beside an extended XYZ file, if it is one of a pair."""
    packed = path.suffix == ".xz"
    stem = path.with_suffix("") if packed else path
    if stem.suffix != ".extxyz":
        return None
    for ending in (".txt.xz", ".txt"):
        text = stem.with_suffix(ending)
        if text.exists():
            return text
    return None


def is_pair(path: Path) -> bool:
    """Whether the text file beside is one of OC20."""
    text = companion(path)
    try:
        return text is not None and _LINE.fullmatch(next(_lines(text), "")) is not None
    except InputError:
        return False


def iter_oc20(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one pair.

    Raises:
        InputError: One of the two is missing, damaged, or shorter than the other.
    """
    text = companion(path)
    if text is None:
        raise InputError(f"{path}: has no .txt or .txt.xz beside it, which names the systems of OC20")
    lines = _lines(text)
    unused = ReadReport()
    for i, raw in enumerate(iter_extxyz(path)):
        match = _LINE.fullmatch(next(lines, ""))
        if match is None:
            raise InputError(f"{text}: line {i + 1} is missing or not random<sid>,frame<fid>,<reference>")
        frame = frame_of_record(raw, keys=_KEYS, report=unused)
        if frame.energy is not None:
            report.took("energy", "energy (eV, total energy)")
        if frame.forces is not None:
            report.took("forces", "forces (eV/Å)")
        yield replace(
            frame,
            group="",
            molecule=match[1],
            trajectory=match[1],
            step=int(match[2]),
            info={"reference_energy": float(match[3])},
        )
    if next(lines, None) is not None:
        raise InputError(f"{path}: holds fewer frames than {text.name} has lines; it is cut short")


def _lines(path: Path) -> Iterator[str]:
    try:
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as stream:
            for line in stream:
                yield line.strip()
    except (EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the file is damaged or cut short ({error})") from error
