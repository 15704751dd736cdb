"""Conversion factors against ASE's."""

from __future__ import annotations

import ase.units
import pytest

from mlip import units


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.HARTREE, ase.units.Hartree),
        (units.BOHR, ase.units.Bohr),
        (units.HARTREE_PER_BOHR, ase.units.Hartree / ase.units.Bohr),
        (units.KCAL_PER_MOL, ase.units.kcal / ase.units.mol),
        (units.KJ_PER_MOL, ase.units.kJ / ase.units.mol),
        (units.GPA, ase.units.GPa),
        (units.KBAR, 1000 * ase.units.bar),
        (units.BOLTZMANN, ase.units.kB),
        (units.INVERSE_CM, ase.units.invcm),
        (units.VIBRATIONAL_QUANTUM, ase.units._hbar * 1e10 / (ase.units._e * ase.units._amu) ** 0.5),
    ],
)
def test_same_as_ase(ours: float, theirs: float) -> None:
    assert ours == pytest.approx(theirs, rel=1e-14)
