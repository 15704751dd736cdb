"""SPICE: small molecules, dimers, dipeptides, solvated amino acids and ions, ωB97M-D3(BJ)/def2-TZVPPD,
HDF5.

`/<name>/{subset, smiles, atomic_numbers (N), conformations (M, N, 3) bohr, dft_total_energy (M) hartree,
dft_total_gradient (M, N, 3) hartree/bohr, …}`; since version 1.1 the datasets have an attribute `units`,
which is obeyed; before 2.0 the shape of gradients may be flat. The force is minus the gradient; components
of gradients are capped at 1 hartree/bohr. There is no charge: it is the sum of the formal charges in the
mapped SMILES; all molecules are closed-shell (an odd number of electrons counts as a doublet).

Source: openmm/spice-dataset `downloader/downloader.py`, README. CC0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.published.foreign_h5 import dataset, groups, open_foreign, require, rows
from mlip.datasets.report import ReadReport
from mlip.errors import InputError
from mlip.units import BOHR, HARTREE, HARTREE_PER_BOHR, KCAL_PER_MOL, KJ_PER_MOL

_LENGTHS = {"bohr": BOHR, "angstrom": 1.0, "nanometer": 10.0}
_ENERGIES = {"hartree": HARTREE, "ev": 1.0, "kcal/mol": KCAL_PER_MOL, "kj/mol": KJ_PER_MOL}
_GRADIENTS = {"hartree/bohr": HARTREE_PER_BOHR, "hartree/angstrom": HARTREE, "ev/angstrom": 1.0}
_BRACKET = re.compile(r"\[[^\]]*?(\++\d*|-+\d*)?(?::\d+)?\]")


def iter_spice(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of the file, molecule by molecule.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_foreign(path) as file:
        for name, group in groups(file):
            if not len(group):
                report.skipped["empty group"] += 1
                continue
            yield from _molecule(group, name, report, where=f"{path}: {name}")


def _molecule(group: Any, name: str, report: ReadReport, *, where: str) -> Iterator[Frame]:
    numbers = np.asarray(dataset(group, "atomic_numbers", where=where)[()], dtype=np.int64).ravel()
    n = len(numbers)
    positions = require(dataset(group, "conformations", where=where), (-1, n, 3), where=where)
    count = len(positions)
    energy = dataset(group, "dft_total_energy", where=where, optional=True)
    gradient = dataset(group, "dft_total_gradient", where=where, optional=True)
    smiles, subset = _text(group, "smiles", where), _text(group, "subset", where)
    charge = charge_of_smiles(smiles)
    length_unit, _ = _unit(positions, _LENGTHS, "bohr", where)
    energy_unit, energy_name = (1.0, "") if energy is None else _unit(energy, _ENERGIES, "hartree", where)
    force_unit, force_name = (
        (1.0, "") if gradient is None else _unit(gradient, _GRADIENTS, "hartree/bohr", where)
    )
    if energy is not None:
        require(energy, (count,), where=where)
    if gradient is not None and gradient.size != count * n * 3:
        raise InputError(f"{where}: `dft_total_gradient` has shape {gradient.shape} for {count} x {n} atoms")
    info: dict[str, Any] = {"subset": subset, "smiles": smiles[:1000]}
    electrons = int(numbers.sum()) - charge
    for x, e, g in zip(
        rows(positions, count), rows(energy, count), _gradients(gradient, count, n), strict=True
    ):
        has_energy = e is not None and bool(np.isfinite(e))
        has_forces = g is not None and bool(np.isfinite(g).all())
        if has_energy:
            report.took("energy", f"dft_total_energy ({energy_name})")
        if has_forces:
            report.took("forces", f"-dft_total_gradient ({force_name})")
        report.took("charge", "formal charges of smiles")
        yield Frame(
            positions=x * length_unit,
            atomic_numbers=numbers,
            energy=float(e) * energy_unit if has_energy else None,
            forces=g * -force_unit if has_forces else None,
            molecule=name,
            charge=charge,
            spin=1 + electrons % 2,
            info={k: v for k, v in info.items() if v},
        )


def _gradients(found: Any, count: int, n: int) -> Iterator[Any]:
    """One gradient for each conformation, whatever the shape they are stored in."""
    if found is None or found.shape[:1] == (count,):
        for row in rows(found, count):
            yield None if row is None else row.reshape(n, 3)
        return
    yield from np.asarray(found[()], dtype=np.float64).reshape(count, n, 3)


def charge_of_smiles(smiles: str) -> int:
    """Sum of the formal charges: `[NH3+:1]`, `[Ca+2]`, `[Ca++]`, `[O-:7]`."""
    total = 0
    for match in _BRACKET.finditer(smiles):
        sign = match[1]
        if sign:
            digits = sign.lstrip("+-")
            size = int(digits) if digits else len(sign)
            total += size if sign[0] == "+" else -size
    return total


def _unit(found: Any, known: dict[str, float], default: str, where: str) -> tuple[float, str]:
    """Factor and name of the unit of a dataset."""
    value = found.attrs.get("units", default)
    name = value.decode() if isinstance(value, bytes) else str(value)
    factor = known.get(name.lower().replace(" ", ""))
    if factor is None:
        column = found.name.rsplit("/", 1)[-1]
        raise InputError(f"{where}: `{column}` is in {name!r}, but must be in one of {', '.join(known)}")
    return factor, name


def _text(group: Any, name: str, where: str) -> str:
    """First text of a dataset; "" without."""
    found = dataset(group, name, where=where, optional=True)
    if found is None or not found.size:
        return ""
    value = np.asarray(found[()]).ravel()[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
