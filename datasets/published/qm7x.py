"""QM7-X: equilibrium and displaced structures of molecules of up to seven heavy atoms, PBE0+MBD, HDF5.

`/<molecule>/<Geom-mR-iS-cT-u>/{atNUM (N), atXYZ (N, 3) Å, "ePBE0+MBD" eV, totFOR (N, 3) eV/Å, …}`: molecule
R, isomer S, conformer T, u is `opt` or the number of a displacement. `totFOR` belongs to `ePBE0+MBD`
(`pbe0FOR` lacks the dispersion). The molecule `mR` is what must not be divided between training and test.

Source: Hoja et al., Sci. Data 8, 43 (2021), README of the data set. CC-BY-4.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.published.foreign_h5 import dataset, groups, open_foreign, require
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

ENERGY, FORCES = "ePBE0+MBD", "totFOR"
_GEOMETRY = re.compile(r"Geom-(m\d+)-i\d+-c\d+-.+")


def iter_qm7x(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one of the files, molecule by molecule.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_foreign(path) as file:
        for molecule, geometries in groups(file):
            for name, geometry in groups(geometries):
                yield _frame(geometry, name, report, where=f"{path}: {molecule}/{name}")


def _frame(group: Any, name: str, report: ReadReport, *, where: str) -> Frame:
    match = _GEOMETRY.fullmatch(name)
    if match is None:
        raise InputError(f"{where}: the name is not Geom-mR-iS-cT-u, so this is not QM7-X")
    numbers = np.asarray(dataset(group, "atNUM", where=where)[()], dtype=np.int64).ravel()
    positions = require(dataset(group, "atXYZ", where=where), (len(numbers), 3), where=where)[()]
    energy = dataset(group, ENERGY, where=where, optional=True)
    forces = dataset(group, FORCES, where=where, optional=True)
    if energy is not None:
        report.took("energy", f"{ENERGY} (eV)")
    if forces is not None:
        require(forces, (len(numbers), 3), where=where)
        report.took("forces", f"{FORCES} (eV/Å)")
    return Frame(
        positions=positions,
        atomic_numbers=numbers,
        energy=None if energy is None else float(np.asarray(energy[()], dtype=np.float64).reshape(())),
        forces=None if forces is None else forces[()],
        molecule=match[1],
        info={"geometry": name},
    )
