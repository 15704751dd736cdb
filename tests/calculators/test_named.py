"""Calculators by name."""

from __future__ import annotations

import sys

import pytest
from ase import Atoms

from mlip.calculators.named import CALCULATORS, named_calculator
from mlip.errors import InputError


def test_tblite_is_gfn2() -> None:
    pytest.importorskip("tblite")
    dioxide = Atoms("CO2", positions=[[0, 0, 0], [0, 0, 1.143651], [0, 0, -1.143651]])
    dioxide.calc = named_calculator("tblite")
    assert dioxide.get_potential_energy() == pytest.approx(-280.507275, abs=1e-5)


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
