"""Charges and spins that structures say they have: refused by models, kept by methods that know them."""

from __future__ import annotations

import pytest
from ase.build import molecule

from mlip.calculators import MLIPCalculator
from mlip.calculators.batch import BatchCalculator
from mlip.calculators.electrons import (
    charge_of,
    multiplicity_of,
    num_electrons,
    said_of,
    spin_of,
    with_spin,
)
from mlip.calculators.named import named_calculator
from mlip.calculators.surface import StructureError
from mlip.errors import InputError
from mlip.potential import Potential


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 1}, "its charge is 1, but the model takes no account"),
        ({"total_charge": -1.0}, "its charge is -1"),
        ({"spin": 3}, r"its spin \(2S \+ 1\) is 3"),
        ({"multiplicity": 2}, r"its spin \(2S \+ 1\) is 2"),
        ({"charge": 0.5}, "`charge` of the structure is 0.5 but must be a whole number"),
        ({"charge": "plus"}, "`charge` of the structure is 'plus' but must be a whole number"),
    ],
)
def test_models_refuse(potential: Potential, info: dict[str, object], message: str) -> None:
    water = molecule("H2O")
    calculator = MLIPCalculator(potential)
    calculator.get_potential_energy(water)
    water.info.update(info)  # the same atoms in the same places
    with pytest.raises(InputError, match=message):
        calculator.get_potential_energy(water)
    with pytest.raises(InputError, match=message):
        calculator.get_hessian(water)
    with pytest.raises(StructureError, match=message) as caught:
        BatchCalculator(potential).evaluate([molecule("H2O"), water])
    assert caught.value.place == 1


def test_initial_charges_and_moments_of_molecules_count(potential: Potential) -> None:
    calculator = MLIPCalculator(potential)
    hydroxyl = molecule("OH")
    assert (charge_of(hydroxyl), spin_of(hydroxyl), num_electrons(hydroxyl)) == (None, 2, 9)
    with pytest.raises(InputError, match=r"its spin \(2S \+ 1\) is 2.*initial charges and moments"):
        calculator.get_potential_energy(hydroxyl)
    hydroxyl.set_initial_magnetic_moments(None)
    hydroxyl.set_initial_charges([-0.6, -0.4])
    assert said_of(hydroxyl) == {"charge": -1}
    assert (num_electrons(hydroxyl), multiplicity_of(hydroxyl)) == (10, 1)
    with pytest.raises(InputError, match="its charge is -1"):
        calculator.get_potential_energy(hydroxyl)
    hydroxyl.info["charge"] = 0  # what is said of the whole counts more
    calculator.get_potential_energy(hydroxyl)
    partial = molecule("H2O")
    partial.set_initial_charges([-0.8, 0.4, 0.401])
    assert charge_of(partial) == 0
    crystal = molecule("O2", cell=[8.0, 8.0, 8.0], pbc=True)
    assert (spin_of(molecule("O2")), spin_of(crystal)) == (3, None)
    tilted = molecule("H2O")
    tilted.set_initial_magnetic_moments([[0, 0, 0], [0.6, 0.8, 0], [0, 0, 0]])
    assert spin_of(tilted) == 2
    assert said_of(with_spin(tilted, 3)) == {"spin": 3}


@pytest.mark.parametrize("info", [{"charge": 0}, {"charge": 0.0, "spin": 1}, {"spin": 0}])
def test_neutral_singlets_are_welcome(potential: Potential, info: dict[str, object]) -> None:
    water = molecule("H2O")
    before = MLIPCalculator(potential).get_potential_energy(water)
    water.info.update(info)
    assert MLIPCalculator(potential).get_potential_energy(water) == before


def test_tblite_takes_them_from_the_structure() -> None:
    pytest.importorskip("tblite")
    from tblite.ase import TBLite

    calculator = named_calculator("tblite")
    for info, options in (
        ({}, {}),
        ({"charge": 1, "spin": 2}, {"charge": 1, "multiplicity": 2}),
        ({"charge": 2}, {"charge": 2}),
        ({}, {}),
    ):
        water = molecule("H2O")
        water.info.update(info)
        expected = TBLite(method="GFN2-xTB", verbosity=0, **options).get_potential_energy(molecule("H2O"))
        assert calculator.get_potential_energy(water) == pytest.approx(expected, abs=1e-6)
