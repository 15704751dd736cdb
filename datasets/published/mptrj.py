"""MPtrj: relaxations of the Materials Project, the training set of CHGNet. One JSON object of 12 GB.

`{mp_id: {"<task>-<calculation>-<step>": frame}}` with `structure` (pymatgen's dictionary),
`uncorrected_total_energy` and `corrected_total_energy` (MP2020; eV), `energy_per_atom` (corrected), `force`
(eV/Å), `stress` (3×3, kbar, VASP's sign: pressure positive), `magmom`, `bandgap`. The label is the
*uncorrected* total energy; the correction, which is constant for a composition and so leaves the forces
alone, is in `info`.

Source: CederGroupHub/chgnet `data/dataset.py`, `examples/QueryMPtrj.md`; the sign and unit of the stress as
in janosh/matbench-discovery. MIT, with the terms of the Materials Project.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.mlearn import open_json, structure_of_pymatgen
from mlip.datasets.published.json_stream import iter_members
from mlip.datasets.report import ReadReport
from mlip.errors import InputError
from mlip.units import KBAR

_FRAME_ID = re.compile(r"(.+)-(\d+)-(\d+)")


def iter_mptrj(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of the file, material by material, those of a relaxation in the order of its steps.

    Raises:
        InputError: It is not of this layout, or cut short.
    """
    with open_json(path) as stream:
        for material, frames in iter_members(stream, path):
            where = f"`{material}` of {path}"
            if not isinstance(frames, dict):
                raise InputError(f"{where}: must be an object of frames, but is a {type(frames).__name__}")
            for frame_id in sorted(frames, key=_order):
                yield _frame(frames[frame_id], material, frame_id, report, where=f"`{frame_id}` in {where}")


def _order(frame_id: str) -> tuple[str, int, int]:
    match = _FRAME_ID.fullmatch(frame_id)
    return (match[1], int(match[2]), int(match[3])) if match else (frame_id, 0, 0)


def _frame(entry: Any, material: str, frame_id: str, report: ReadReport, *, where: str) -> Frame:
    if not isinstance(entry, dict) or not isinstance(entry.get("structure"), dict):
        raise InputError(f"{where}: has no `structure`, so this is not MPtrj")
    numbers, positions, cell = structure_of_pymatgen(entry["structure"], where)
    energy, corrected = entry.get("uncorrected_total_energy"), entry.get("corrected_total_energy")
    stress = entry.get("stress")
    match = _FRAME_ID.fullmatch(frame_id)
    info: dict[str, str | int | float | bool] = {"frame": frame_id}
    if energy is not None and corrected is not None:
        info["mp2020_correction"] = float(corrected) - float(energy)
    try:
        frame = Frame(
            positions=positions,
            atomic_numbers=numbers,
            cell=cell,
            pbc=np.ones(3, dtype=bool),
            energy=energy,
            forces=entry.get("force"),
            stress=None if stress is None else -KBAR * np.asarray(stress, dtype=np.float64),
            molecule=material,
            trajectory=f"{match[1]}-{match[2]}" if match else "",
            step=int(match[3]) if match else -1,
            info=info,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
    for label, source in (
        ("energy", "uncorrected_total_energy (eV)"),
        ("forces", "force (eV/Å)"),
        ("stress", "stress (kbar, VASP sign)"),
    ):
        if getattr(frame, label) is not None:
            report.took(label, source)
    return frame
