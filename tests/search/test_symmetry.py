"""Symmetry numbers: textbook values, pymatgen's where it finds them, and distortions that must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlip.errors import InputError
from mlip.search.symmetry import rotational_symmetry


def octahedron() -> Atoms:
    arms = np.concatenate([np.eye(3), -np.eye(3)]) * 1.56
    return Atoms("SF6", positions=np.concatenate([np.zeros((1, 3)), arms]))


KNOWN = {
    "H2O": (2, "C2"), "NH3": (3, "C3"), "CH4": (12, "T"), "C2H4": (4, "D2"), "C2H6": (6, "D3"),
    "C6H6": (12, "D6"), "BF3": (6, "D3"), "H2O2": (2, "C2"), "C3H4_D2d": (4, "D2"), "CH3OH": (1, "C1"),
    "CH3CH2OH": (1, "C1"), "C60": (60, "I"), "2-butyne": (6, "D3"), "isobutane": (3, "C3"),
    "CO2": (2, "D∞"), "HCN": (1, "C∞"), "N2": (2, "D∞"), "C2H2": (2, "D∞"), "Ar": (1, "K"),
}  # fmt: skip
"""Cramer, Essentials of Computational Chemistry, 2nd ed., appendix B."""


@pytest.mark.parametrize("name", KNOWN)
def test_textbook_values(name: str) -> None:
    atoms = Atoms("Ar") if name == "Ar" else molecule(name)
    atoms.translate([5, -7, 9])
    found = rotational_symmetry(atoms)
    assert (found.number, found.group, found.tolerance) == (*KNOWN[name], 0.1)


def test_octahedron() -> None:
    found = rotational_symmetry(octahedron())
    assert (found.number, found.group) == (24, "O")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), name=st.sampled_from(["CH4", "C6H6", "NH3", "C2H6", "CO2", "C3H4_D2d"])
)
def test_small_distortions_order_and_frame_do_not_matter(seed: int, name: str) -> None:
    random = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += random.uniform(-0.015, 0.015, size=atoms.positions.shape)
    atoms.positions = Rotation.random(random_state=seed).apply(atoms.positions) + random.normal(size=3) * 50
    atoms = atoms[random.permutation(len(atoms))]
    assert rotational_symmetry(atoms).number == KNOWN[name][0]


def test_isotopes_and_mirrors_are_told_apart() -> None:
    water = molecule("H2O")
    masses = water.get_masses()
    masses[1] = 2.014
    water.set_masses(masses)
    assert rotational_symmetry(water).number == 1
    ammonia = molecule("NH3")  # has mirrors, which are no rotations
    assert rotational_symmetry(ammonia).number == 3


def test_a_tolerance_that_takes_in_half_a_group_is_lowered() -> None:
    square = Atoms("H4", positions=[[1, 0, 0], [0, 1.06, 0], [-1, 0, 0], [0, -1, 0]])
    for tolerance in np.geomspace(0.001, 0.5, 25):
        found = rotational_symmetry(square, tolerance=tolerance)
        assert found.number in (1, 2, 4, 8)
        assert found.tolerance <= tolerance


def test_agrees_with_pymatgen() -> None:
    structure = pytest.importorskip("pymatgen.core")
    from pymatgen.symmetry.analyzer import PointGroupAnalyzer

    for name in ("CH3Cl", "trans-butane", "cyclobutane", "bicyclobutane", "C4H4O", "C5H5N", "CH2_s3B1d"):
        atoms = molecule(name)
        group = PointGroupAnalyzer(structure.Molecule(list(atoms.symbols), atoms.positions), tolerance=0.1)
        assert rotational_symmetry(atoms).number == group.get_rotational_symmetry_number(), name


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="periodic"):
        rotational_symmetry(bulk("Si"))
    with pytest.raises(InputError, match="`tolerance` is 0"):
        rotational_symmetry(molecule("H2O"), tolerance=0.0)
