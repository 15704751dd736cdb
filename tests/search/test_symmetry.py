"""Point groups: all of them, textbook values, pymatgen's, and distortions that must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlip.errors import InputError
from mlip.search.symmetry import point_group


def octahedron() -> Atoms:
    arms = np.concatenate([np.eye(3), -np.eye(3)]) * 1.56
    return Atoms("SF6", positions=np.concatenate([np.zeros((1, 3)), arms]))


KNOWN = {
    "H2O": (2, "C2v"), "NH3": (3, "C3v"), "CH4": (12, "Td"), "C2H4": (4, "D2h"), "C2H6": (6, "D3d"),
    "C6H6": (12, "D6h"), "BF3": (6, "D3h"), "H2O2": (2, "C2"), "C3H4_D2d": (4, "D2d"), "CH3OH": (1, "Cs"),
    "CH3CH2OH": (1, "Cs"), "C60": (60, "Ih"), "isobutane": (3, "C3v"), "trans-butane": (2, "C2h"),
    "CO2": (2, "D∞h"), "HCN": (1, "C∞v"), "N2": (2, "D∞h"), "C2H2": (2, "D∞h"), "Ar": (1, "Kh"),
}  # fmt: skip
"""Cramer, Essentials of Computational Chemistry, 2nd ed., appendix B."""


@pytest.mark.parametrize("name", KNOWN)
def test_textbook_values(name: str) -> None:
    atoms = Atoms("Ar") if name == "Ar" else molecule(name)
    atoms.translate([5, -7, 9])
    found = point_group(atoms)
    assert (found.symmetry_number, found.name, found.tolerance) == (*KNOWN[name], 0.1)


def test_octahedron() -> None:
    found = point_group(octahedron())
    assert (found.symmetry_number, found.name) == (24, "Oh")


def orbit(name: str, points: np.ndarray) -> Atoms:
    """Atoms at all places to which a group, made of SciPy's rotations, takes some points."""
    family, improper = GROUPS[name]
    proper = Rotation.create_group(family).as_matrix()
    turns = proper if improper is None else np.concatenate([proper, proper @ improper])
    return Atoms(np.repeat([6, 1, 7, 8], len(turns)), positions=np.concatenate([turns @ p for p in points]))


def about_z(degrees: float) -> np.ndarray:
    return Rotation.from_euler("z", degrees, degrees=True).as_matrix()


ACROSS, UPRIGHT = np.diag([1.0, 1.0, -1.0]), np.diag([1.0, -1.0, 1.0])
GROUPS = {
    **{f"C{n}": (f"C{n}", None) for n in range(1, 9)},
    **{f"D{n}": (f"D{n}", None) for n in range(2, 9)},
    **{f"C{n}v": (f"C{n}", UPRIGHT) for n in range(2, 9)},
    **{f"C{n}h": (f"C{n}", ACROSS) for n in range(2, 9)},
    **{f"S{2 * n}": (f"C{n}", about_z(180 / n) @ ACROSS) for n in range(2, 7)},
    **{f"D{n}h": (f"D{n}", ACROSS) for n in range(2, 9)},
    **{f"D{n}d": (f"D{n}", about_z(180 / n) @ ACROSS) for n in range(2, 7)},
    "Cs": ("C1", ACROSS), "Ci": ("C1", -np.eye(3)),
    "T": ("T", None), "Td": ("T", about_z(90) @ ACROSS), "Th": ("T", -np.eye(3)),
    "O": ("O", None), "Oh": ("O", -np.eye(3)), "I": ("I", None), "Ih": ("I", -np.eye(3)),
}  # fmt: skip
"""Proper rotations, and one of the improper operations; the axis of SciPy's groups is z."""


@pytest.mark.parametrize("name", GROUPS)
def test_every_point_group(name: str) -> None:
    """Found again by the atoms that its own operations make of four points in general positions."""
    points = np.array([[1.2, 2.3, 3.1], [-2.0, 1.1, 0.7], [0.4, -1.9, 4.5], [3.3, 0.6, -1.4]])
    atoms = orbit(name, points)
    atoms.positions = Rotation.random(random_state=1).apply(atoms.positions) + 5
    found = point_group(atoms)
    assert (found.name, found.symmetry_number) == (name, len(Rotation.create_group(GROUPS[name][0])))


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
    assert point_group(atoms).symmetry_number == KNOWN[name][0]


def test_isotopes_and_mirrors_are_told_apart() -> None:
    water = molecule("H2O")
    masses = water.get_masses()
    masses[1] = 2.014
    water.set_masses(masses)
    assert point_group(water).symmetry_number == 1
    ammonia = molecule("NH3")  # has mirrors, which are no rotations
    assert point_group(ammonia).symmetry_number == 3


def test_a_tolerance_that_takes_in_half_a_group_is_lowered() -> None:
    square = Atoms("H4", positions=[[1, 0, 0], [0, 1.06, 0], [-1, 0, 0], [0, -1, 0]])
    for tolerance in np.geomspace(0.001, 0.5, 25):
        found = point_group(square, tolerance=tolerance)
        assert found.symmetry_number in (1, 2, 4, 8)
        assert found.tolerance <= tolerance


def test_agrees_with_pymatgen() -> None:
    structure = pytest.importorskip("pymatgen.core")
    from pymatgen.symmetry.analyzer import PointGroupAnalyzer

    for name in ("CH3Cl", "trans-butane", "cyclobutane", "bicyclobutane", "C4H4O", "C5H5N", "CH2_s3B1d"):
        atoms = molecule(name)
        group = PointGroupAnalyzer(structure.Molecule(list(atoms.symbols), atoms.positions), tolerance=0.1)
        found = point_group(atoms)
        assert found.symmetry_number == group.get_rotational_symmetry_number(), name
        assert found.name == group.sch_symbol, name


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="periodic"):
        point_group(bulk("Si"))
    with pytest.raises(InputError, match="`tolerance` is 0"):
        point_group(molecule("H2O"), tolerance=0.0)
