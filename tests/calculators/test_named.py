"""Calculators by name."""

from __future__ import annotations

import sys

import pytest
from ase import Atoms
from ase.build import molecule

from mlip.calculators.named import CALCULATORS, named_calculator
from mlip.errors import InputError


def test_tblite_is_gfn2() -> None:
    pytest.importorskip("tblite")
    dioxide = Atoms("CO2", positions=[[0, 0, 0], [0, 0, 1.143651], [0, 0, -1.143651]])
    dioxide.calc = named_calculator("tblite")
    assert dioxide.get_potential_energy() == pytest.approx(-280.507275, abs=1e-5)


def test_a_spin_of_nought_is_one_that_is_not_said() -> None:
    pytest.importorskip("tblite")
    for formula in ("H2O", "NO"):
        bare = molecule(formula)
        bare.set_initial_magnetic_moments(None)
        said = bare.copy()
        said.info["spin"] = 0
        energies = [named_calculator("tblite").get_potential_energy(atoms) for atoms in (bare, said)]
        assert energies[1] == pytest.approx(energies[0], abs=1e-9)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(
        InputError, match=f'`calculator` is "gaussian" but must be one of: {", ".join(CALCULATORS)}'
    ):
        named_calculator("gaussian")


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite", None)
    monkeypatch.delitem(sys.modules, "tblite.ase", raising=False)
    with pytest.raises(
        InputError, match=r'GFN2-xTB\) needs the package "tblite.*pip install "polyad\[labels\]"'
    ):
        named_calculator("tblite")
