"""ANI-1x: off-equilibrium organic molecules (H, C, N, O), HDF5.

`/<formula>/{atomic_numbers (N), coordinates (M, N, 3) Å, "wb97x_dz.energy" (M) hartree, "wb97x_dz.forces"
(M, N, 3) hartree/Å, "wb97x_tz.energy", "ccsd(t)_cbs.energy", …}`. NaN stands for a missing value. The
labels are those of ωB97x/6-31G*; the coupled-cluster energy, which has no forces, is in `info` where there
is one. A group holds all isomers of a formula, in no order: the formula is the group of the frames.

Source: aiqm/ANI1x_datasets `dataloader.py`; Smith et al., Sci. Data 7, 134 (2020). CC0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame, Scalar
from mlip.datasets.published.foreign_h5 import dataset, groups, open_foreign, require, rows
from mlip.datasets.report import ReadReport
from mlip.units import HARTREE

ENERGY, FORCES, COUPLED_CLUSTER = "wb97x_dz.energy", "wb97x_dz.forces", "ccsd(t)_cbs.energy"


def iter_ani1x(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of the file, formula by formula.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_foreign(path) as file:
        for formula, group in groups(file):
            yield from _formula(group, formula, report, where=f"{path}: {formula}")


def _formula(group: Any, formula: str, report: ReadReport, *, where: str) -> Iterator[Frame]:
    numbers = np.asarray(dataset(group, "atomic_numbers", where=where)[()], dtype=np.int64).ravel()
    n = len(numbers)
    positions = require(dataset(group, "coordinates", where=where), (-1, n, 3), where=where)
    count = len(positions)
    energy = require(dataset(group, ENERGY, where=where), (count,), where=where)
    forces = require(dataset(group, FORCES, where=where), (count, n, 3), where=where)
    better = dataset(group, COUPLED_CLUSTER, where=where, optional=True)
    if better is not None:
        require(better, (count,), where=where)
    columns = (rows(positions, count), rows(energy, count), rows(forces, count), rows(better, count))
    for x, e, f, cc in zip(*columns, strict=True):
        has_energy, has_forces = bool(np.isfinite(e)), bool(np.isfinite(f).all())
        if not has_energy and not has_forces:
            report.skipped["neither energy nor forces of wb97x_dz"] += 1
            continue
        info: dict[str, Scalar] = {}
        if cc is not None and np.isfinite(cc):
            info["ccsd(t)_cbs.energy"] = float(cc) * HARTREE
        if has_energy:
            report.took("energy", f"{ENERGY} (hartree)")
        if has_forces:
            report.took("forces", f"{FORCES} (hartree/Å)")
        yield Frame(
            positions=x,
            atomic_numbers=numbers,
            energy=float(e) * HARTREE if has_energy else None,
            forces=f * HARTREE if has_forces else None,
            group=formula,
            info=info,
        )
