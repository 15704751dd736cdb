from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from mlip.datasets import Frame, LabelKeys, frame_digest
from mlip.errors import InputError


def test_sequences_become_arrays() -> None:
    frame = Frame(positions=[[0, 0, 0]], atomic_numbers=[1], pbc=True, energy=np.float32(1.5))  # type: ignore[arg-type]
    assert frame.positions.dtype == np.float64
    assert frame.atomic_numbers.dtype == np.int64
    assert frame.pbc.tolist() == [True, True, True]
    assert type(frame.energy) is float
    assert len(frame) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((2, 3))}, r"`positions` has shape \(2, 3\) but must have \(1, 3\)"),
        ({"forces": np.zeros((1, 2))}, r"`forces` has shape \(1, 2\) but must have \(1, 3\)"),
        ({"cell": np.zeros(6)}, r"`cell` has shape \(6,\)"),
        ({"stress": np.zeros(6)}, r"`stress` has shape \(6,\)"),
        ({"hessian": np.zeros((1, 3))}, r"`hessian` has shape \(1, 3\) but must have \(3, 3\)"),
        (
            {"hessian": np.triu(np.ones((3, 3)))},
            "`hessian` differs from its transpose by 1 eV/Å², its largest element being 1",
        ),
        ({"pbc": [True, False]}, "`pbc` has shape"),
        ({"atomic_numbers": [[1]]}, "`atomic_numbers` has shape"),
    ],
)
def test_wrong_shapes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Frame(**{"positions": np.zeros((1, 3)), "atomic_numbers": [1], **change})


def test_atoms_round_trip(water: Frame, crystal: Frame) -> None:
    for frame in (water, crystal):
        back = Frame.from_atoms(frame.to_atoms())
        assert frame_digest(back) == frame_digest(frame)
        assert (back.group, back.weight, back.charge, back.spin) == (
            frame.group,
            frame.weight,
            frame.charge,
            frame.spin,
        )
        assert back.info == frame.info


def test_stored_forces_are_kept_under_constraints() -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]], constraint=FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-30.0, forces=np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    assert atoms.get_forces()[0, 2] == 0.0  # what ASE makes of them
    frame = Frame.from_atoms(atoms)
    assert frame.forces is not None
    assert frame.forces[0, 2] == 1.0


def test_results_of_another_structure_are_ignored() -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]])
    atoms.calc = SinglePointCalculator(atoms, energy=-30.0)
    assert Frame.from_atoms(atoms).energy == -30.0
    atoms.positions[1, 2] = 0.9
    assert Frame.from_atoms(atoms).energy is None


def test_from_atoms_with_named_keys() -> None:
    atoms = Atoms("H", positions=[[0, 0, 0]])
    atoms.info["mine"] = -13.6
    atoms.info["energy"] = -1.0
    assert Frame.from_atoms(atoms, keys=LabelKeys(energy="mine")).energy == -13.6
    assert Frame.from_atoms(atoms).energy == -1.0


def test_formula_is_in_hill_order() -> None:
    def formula(numbers: list[int]) -> str:
        return Frame(positions=np.zeros((len(numbers), 3)), atomic_numbers=np.array(numbers)).formula

    assert formula([8, 1, 1]) == "H2O"
    assert formula([8, 6, 1, 1, 1, 6, 1, 1, 1]) == "C2H6O"
    assert formula([17, 11]) == "ClNa"


@pytest.mark.parametrize("mark", ["IsolatedAtom", "isolated_atom", "Isolated atom"])
def test_isolated_atom_marks(mark: str) -> None:
    assert Frame(
        positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), info={"config_type": mark}
    ).is_isolated_atom
    assert not Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1])).is_isolated_atom


def test_a_hessian_may_be_as_asymmetric_as_published_ones() -> None:
    hessian = np.diag([50.0, 40.0, 30.0])
    hessian[0, 1] = 0.08
    frame = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), hessian=hessian)
    assert frame.hessian is not None
    assert frame.hessian[0, 1] == 0.08
    other = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]))
    assert frame_digest(frame) != frame_digest(other)


@pytest.mark.parametrize(
    ("given", "group"),
    [
        ({}, ""),
        ({"trajectory": "t"}, "t"),
        ({"trajectory": "t", "molecule": "m"}, "m"),
        ({"trajectory": "t", "molecule": "m", "reaction": "r"}, "r"),
        ({"reaction": "r", "group": "g"}, "g"),
    ],
)
def test_group_is_the_coarsest_key(given: dict[str, str], group: str) -> None:
    frame = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), **given)  # type: ignore[arg-type]
    assert frame.group == group
    assert frame.belongs_to() == ({**given, "group": group} if given else {})
    back = Frame.from_atoms(frame.to_atoms())
    assert back.belongs_to() == frame.belongs_to()
