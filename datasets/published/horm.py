"""HORM: energies, forces and Hessians of reactive geometries (Transition1x and RGD1), ωB97X/6-31G(d).

Graph LMDB (`graph_lmdb`), PyG 2. `pos`, `forces` (float32; Å, eV/Å), `energy` (float32, eV), `ae` (float32:
the energy less that of the atoms, eV), `charges` (atomic numbers), `hessian` (float32, 9N² numbers, eV/Å²,
asymmetric by up to 0.08). `rxn` is 1 in all records of the published sample: it names no reaction, so nothing
says which frames belong together, and the formula is the group, as in the published split of Transition1x.

A float32 resolves 1 meV only of a total energy of -8000 eV. Where there is `ae`, the total energy is `ae`
plus the energies of the atoms that the file itself implies, in float64.

Source: deepprinciple/HORM (`README.md`, sample_100.lmdb). Its data are CC BY-NC-SA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.published.graph_lmdb import array, iter_graphs, number
from mlip.datasets.published.lmdb_file import open_lmdb
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

ATOMS = {1: -16.71317, 6: -1035.52100, 7: -1489.14061, 8: -2046.24251}
"""eV; by least squares of `energy` less `ae`, which leaves 0.44 meV, the rounding of `energy`."""

_ROUNDING = 0.01  # eV; beyond it the file has other atoms


def iter_horm(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one file.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_lmdb(path) as file:
        for where, found in iter_graphs(file):
            yield _frame(found, report, where=where)


def _frame(found: dict[str, Any], report: ReadReport, *, where: str) -> Frame:
    positions = array(found, "pos", (-1, 3), where=where)
    n = len(positions)
    numbers = array(found, "charges", (n,), where=where).astype(np.int64)
    if "hessian" in found:
        report.took("hessian", "hessian (eV/Å²)")
    report.took("forces", "forces (eV/Å)")
    try:
        frame = Frame(
            positions=positions,
            atomic_numbers=numbers,
            energy=_energy(found, numbers, report, where=where),
            forces=array(found, "forces", (n, 3), where=where),
            hessian=array(found, "hessian", (3 * n, 3 * n), where=where) if "hessian" in found else None,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return replace(frame, group=frame.formula)


def _energy(found: dict[str, Any], numbers: np.ndarray, report: ReadReport, *, where: str) -> float | None:
    total, atomisation = number(found, "energy", where=where), number(found, "ae", where=where)
    if atomisation is not None and set(numbers.tolist()) <= set(ATOMS):
        precise = atomisation + sum(ATOMS[z] for z in numbers.tolist())
        if total is None or abs(precise - total) < _ROUNDING:
            report.took("energy", "ae (float32, eV) plus atoms")
            return precise
    if total is not None:
        report.took("energy", "energy (float32, eV)")
    return total
