"""Frequencies on a real surface, GFN2-xTB, against values obtained elsewhere with it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlip.calculators.named import named_calculator
from mlip.search.minimum import minimum
from mlip.search.symmetry import point_group

pytest.importorskip("tblite", reason="tblite is not installed")

HCN = Atoms("HCN", positions=[[0, 0, -1.06], [0, 0, 0], [0, 0, 1.14]])
HNC = Atoms("HNC", positions=[[0, 0, -1.0], [0, 0, 0], [0, 0, 1.16]])


@pytest.mark.parametrize(
    ("atoms", "energy", "frequencies", "number"),
    [
        (HCN, -149.773271, [777.11, 777.11, 2294.79, 3286.19], 1),
        (HNC, -148.905055, [595.05, 595.05, 2180.61, 3543.75], 1),
        (molecule("NH3"), -120.444235, [1160.66, 1593.2, 1593.2, 3424.96, 3477.0, 3477.0], 3),
        (molecule("CO2"), -280.507275, [600.54, 600.54, 1424.89, 2593.38], 2),
    ],
    ids=["HCN", "HNC", "NH3", "CO2"],
)
def test_frequencies(atoms: Atoms, energy: float, frequencies: list[float], number: int) -> None:
    atoms = atoms.copy()
    atoms.rotate(31, (1, 2, 3))
    atoms.translate([4.0, -8.0, 3.0])
    found = minimum(atoms, named_calculator("tblite"), fmax=1e-4)
    assert found.converged
    assert found.vibrations is not None
    assert found.vibrations.energy == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(found.vibrations.modes.frequencies, frequencies, atol=0.5)
    assert point_group(found.vibrations.atoms).symmetry_number == number


def test_planar_ammonia_is_a_saddle_and_is_left() -> None:
    turns = 2 * np.pi * np.arange(3) / 3
    ring = 0.992734 * np.stack([np.cos(turns), np.sin(turns), np.zeros(3)], axis=1)
    planar = Atoms("NH3", positions=np.concatenate([np.zeros((1, 3)), ring]))
    calculator = named_calculator("tblite")
    from mlip.search.vibrations import vibrations

    saddle = vibrations(planar, calculator)
    expected = [-971.22, 1463.0, 1463.0, 3612.98, 3724.6, 3724.6]
    np.testing.assert_allclose(saddle.modes.frequencies, expected, atol=0.5)
    assert saddle.modes.num_imaginary == 1
    found = minimum(planar, calculator, fmax=1e-3)
    assert found.escapes == 1
    assert found.relaxation.energy == pytest.approx(-120.444235, abs=1e-5)
