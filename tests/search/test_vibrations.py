"""Normal modes: known frequencies, ASE's `Vibrations`, and rigid motions counted where others slip."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.optimize import BFGS
from ase.vibrations import Vibrations as ASEVibrations
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlip.calculators.surface import ASESurface, finite_difference_hessian
from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search.vibrations import format_frequency, normal_modes, vibrations
from mlip.units import VIBRATIONAL_QUANTUM

COLLINEAR = np.array([1.0, 2.0, -2.0]) / 3.0
"""A direction in general position, exactly normalised."""


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=1.0, epsilon=1.0, rc=50.0)


def relaxed(name: str) -> Atoms:
    atoms = molecule(name)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-5, steps=200)
    return atoms


def counts(atoms: Atoms) -> tuple[int, int]:
    motions = rigid_motions(atoms)
    return motions.translations, motions.rotations


def line(*at: float, off: float = 0.0) -> Atoms:
    """A carbon dioxide or the like far from the origin, its second atom `off` Å beside the line."""
    positions = np.array([7.0, -9.0, 4.0]) + np.outer(at, COLLINEAR)
    positions[1] += off * np.array([2.0, -1.0, 0.0]) / 5**0.5
    return Atoms("OCO"[: len(at)] if len(at) <= 3 else "C" * len(at), positions=positions)


def test_dimer_has_the_frequency_of_its_spring() -> None:
    """k = 57.146438 ε/σ² at the minimum of the Lennard-Jones potential."""
    atoms = Atoms("ArXe", positions=[[5, 5, 5], 5 + 2 ** (1 / 6) * COLLINEAR])
    found = vibrations(atoms, lennard_jones())
    reduced = 1 / (1 / atoms.get_masses()).sum()
    expected = (57.146438 / reduced) ** 0.5 * VIBRATIONAL_QUANTUM / 0.0001239841973964072
    assert (found.modes.translations, found.modes.rotations) == (3, 2)
    assert found.hessian_method == "finite-difference"
    assert found.energy == pytest.approx(-1.0)
    assert found.modes.frequencies == pytest.approx([expected], rel=2e-4)
    # both atoms move along the bond, in inverse proportion to their masses
    first, second = found.modes.cartesian[0]
    np.testing.assert_allclose(first * atoms.get_masses()[0], -second * atoms.get_masses()[1], atol=1e-9)
    assert found.modes.zero_point_energy == pytest.approx(0.5 * expected * 0.0001239841973964072, rel=2e-4)


def test_clusters_have_their_known_eigenvalues() -> None:
    """Page values: LJ3 has h = 85.71966 twice and 171.43931; the linear one is a saddle of index 2 that has
    lost a rotation, not a bend."""
    side = 2 ** (1 / 6)
    triangle = Atoms(
        "H3", positions=[[0, 0, 0], [side, 0, 0], [side / 2, side * 3**0.5 / 2, 0]], masses=[1, 1, 1]
    )
    triangle.calc = lennard_jones()
    modes = normal_modes(triangle, finite_difference_hessian(triangle, displacement=1e-4))
    stiffness = (modes.energies / VIBRATIONAL_QUANTUM) ** 2
    np.testing.assert_allclose(stiffness, [85.71966, 85.71966, 171.43931], rtol=1e-6)
    straight = line(-1.121029938, 0.0, 1.121029938)
    straight.set_masses([1, 1, 1])
    found = vibrations(straight, lennard_jones())
    assert (found.modes.rotations, len(found.modes.frequencies), found.modes.num_imaginary) == (2, 4, 2)


@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH", "CO2"])
def test_frequencies_are_those_of_ase(name: str, tmp_path) -> None:
    """To 0.1 cm⁻¹, off the origin and turned."""
    atoms = relaxed(name)
    atoms.rotate(73, (1, 2, 3))
    atoms.translate([11.0, -6.0, 3.0])
    theirs = ASEVibrations(atoms, delta=0.005, name=str(tmp_path / "vib"))
    theirs.run()
    expected = theirs.get_frequencies()
    signed = np.sort(expected.real - expected.imag)
    ours = vibrations(atoms, EMT()).modes
    removed = ours.translations + ours.rotations
    assert removed == (5 if name == "CO2" else 6)
    # what is left of theirs when the rigid motions, their smallest, are taken out
    rest = np.sort(signed[np.argsort(np.abs(signed))[removed:]])
    np.testing.assert_allclose(ours.frequencies, rest, atol=0.1)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (Atoms("Ar", positions=[[3, 4, 5]]), (3, 0)),
        (molecule("N2"), (3, 2)),
        (line(-1.16, 0, 1.16), (3, 2)),
        (line(-1.16, 0, 1.16, off=0.01), (3, 2)),  # as bent as a relaxation may leave it
        (line(-1.16, 0, 1.16, off=0.1), (3, 3)),
        (line(*range(20)), (3, 2)),
        (molecule("C2H2"), (3, 2)),
        (molecule("H2O"), (3, 3)),
        (molecule("C6H6"), (3, 3)),
        (bulk("Si"), (3, 0)),
        (Atoms("C2", cell=[20, 20, 2.5], pbc=[0, 0, 1], positions=[[10, 10, 0], [10, 11, 1.2]]), (3, 1)),
        (Atoms("C2", cell=[20, 20, 2.6], pbc=[0, 0, 1], positions=[[10, 10, 0], [10, 10, 1.3]]), (3, 0)),
    ],
)
def test_rigid_motions_are_counted(atoms: Atoms, expected: tuple[int, int]) -> None:
    assert counts(atoms) == expected
    motions = rigid_motions(atoms)
    both = np.concatenate([motions.removed, motions.complement])
    np.testing.assert_allclose(both @ both.T, np.eye(3 * len(atoms)), atol=1e-12)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (FixAtoms([0]), (0, 3)),
        (FixAtoms([0, 1]), (0, 1)),
        (FixAtoms([0, 1, 2]), (0, 0)),
        (FixCartesian([0], [True, False, False]), (2, 3)),  # turns about it, slides along y and z
        (FixCartesian(range(9), [False, False, True]), (2, 1)),  # a molecule in a plane
    ],
)
def test_fixed_atoms_leave_fewer_rigid_motions(constraint, expected: tuple[int, int]) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.set_constraint(constraint)
    assert counts(atoms) == expected
    motions = rigid_motions(atoms)
    assert not motions.complement[:, ~motions.free].any()
    assert len(motions.removed) + len(motions.complement) == motions.free.sum()


def test_a_slab_with_fixed_atoms_has_no_rigid_motion() -> None:
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([0]))
    found = vibrations(slab, EMT())
    assert counts(slab) == (0, 0)
    assert found.modes.cartesian.shape == (9, 4, 3)
    assert not found.modes.cartesian[:, 0].any()
    assert found.modes.frequencies.min() > 0


def test_an_atom_does_not_vibrate() -> None:
    found = vibrations(Atoms("Ar", positions=[[1, 2, 3]]), lennard_jones())
    assert found.modes.frequencies.shape == (0,)
    assert found.modes.zero_point_energy == 0.0
    assert found.modes.num_imaginary == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(["H2O", "CO2", "C2H2", "CH3OH"]))
def test_rigid_motions_of_an_invariant_energy_cost_nothing(seed: int, name: str) -> None:
    """Projection commutes with turning and moving; frequencies do not depend on the frame."""
    random = np.random.default_rng(seed)
    atoms = molecule(name)
    half = random.normal(size=(3 * len(atoms), 3 * len(atoms)))
    hessian = half + half.T
    turn = Rotation.random(random_state=seed % 2**31).as_matrix()
    moved = atoms.copy()
    moved.positions = atoms.positions @ turn.T + random.normal(size=3) * 100
    block = np.kron(np.eye(len(atoms)), turn)
    here, there = normal_modes(atoms, hessian), normal_modes(moved, block @ hessian @ block.T)
    np.testing.assert_allclose(here.frequencies, there.frequencies, rtol=1e-6, atol=1e-3)


def test_modes_are_normalised_both_ways() -> None:
    modes = vibrations(relaxed("H2O"), EMT()).modes
    flat = modes.mass_weighted.reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(modes.cartesian.reshape(3, -1), axis=1), 1.0)
    masses = relaxed("H2O").get_masses()
    momentum = np.einsum("kid,i->kd", modes.cartesian, masses)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-10)
    np.testing.assert_allclose(
        modes.reduced_masses, np.einsum("kid,i->k", modes.cartesian**2, masses), rtol=1e-10
    )


def test_forces_on_fixed_atoms_do_not_count() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [1.05, 0, 0]])
    assert vibrations(atoms, lennard_jones()).fmax > 1.0
    atoms.set_constraint(FixAtoms([0, 1]))
    assert vibrations(atoms, lennard_jones()).fmax == 0.0


def test_any_surface_will_do() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [2 ** (1 / 6), 0, 0]])
    one, other = vibrations(atoms, ASESurface(lennard_jones())), vibrations(atoms, lennard_jones())
    np.testing.assert_array_equal(one.modes.frequencies, other.modes.frequencies)


def test_only_models_have_a_choice_of_hessians() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [2 ** (1 / 6), 0, 0]])
    with pytest.raises(InputError, match='`hessian_method` is "direct" but must be left out'):
        vibrations(atoms, lennard_jones(), hessian_method="direct")


def test_how_frequencies_are_written() -> None:
    assert format_frequency(-123.44) == "123.4i"
    assert format_frequency(1594.66) == "1594.7"


@pytest.mark.parametrize(
    ("atoms", "hessian", "message"),
    [
        (Atoms(), np.zeros((0, 0)), "no atoms"),
        (molecule("N2"), np.zeros((3, 3)), r"shape \(3, 3\) but must be \(6, 6\) for 2 atoms"),
        (molecule("N2"), np.full((6, 6), np.nan), "not finite"),
        (molecule("N2"), np.triu(np.ones((6, 6))), "not symmetric"),
        (Atoms("N2", masses=[14, 0], positions=np.eye(3)[:2]), np.zeros((6, 6)), r"mass of atom 1 \(N\)"),
        (Atoms("N2", constraint=FixBondLength(0, 1)), np.zeros((6, 6)), "FixBondLengths constraint"),
    ],
)  # fmt: skip
def test_what_is_refused(atoms: Atoms, hessian: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        normal_modes(atoms, hessian)
