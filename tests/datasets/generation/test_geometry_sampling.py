"""Labels, relaxations and the geometries scattered about minima."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.data import atomic_masses, covalent_radii, vdw_radii
from ase.units import kB

from mlip.datasets.generation.collection import Collector, Note
from mlip.datasets.generation.labelling import ASELabels, LabelError, Particles, hessian
from mlip.datasets.generation.reactions import interpolated, random_push, refined_path
from mlip.datasets.generation.relaxation import Labelled, Push, kept, relax
from mlip.datasets.generation.sampling import (
    dynamics,
    placed,
    rattled,
    stretched,
    thermal_modes,
    twisted,
)
from mlip.datasets.generation.topology import Array, Topology, distances
from mlip.errors import InputError

STIFFNESS = 30.0  # eV/Å²
WATER = np.array([8, 1, 1])
WATER_POSITIONS = np.array([[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])


class Springs:
    """Harmonic springs between given pairs, or all."""

    def __init__(self, rest: Array) -> None:
        self.rest = distances(rest)
        self.calls = 0

    def __call__(self, positions: Array, *, near: bool = False) -> tuple[float, Array]:
        self.calls += 1
        along = positions[:, None] - positions
        length = distances(positions) + np.eye(len(positions))
        stretch = (length - self.rest) * (1 - np.eye(len(positions)))
        forces = -STIFFNESS * (stretch / length)[..., None] * along
        return 0.25 * STIFFNESS * float(np.sum(stretch**2)), forces.sum(axis=1)


class TestTBLite:
    """GFN2-xTB."""

    @pytest.fixture(autouse=True)
    def _need_tblite(self) -> None:
        pytest.importorskip("tblite")

    def test_forces_are_the_slope_of_the_energy(self) -> None:
        from mlip.datasets.generation.labelling import TBLite

        label = TBLite(Particles(WATER))
        x, step = WATER_POSITIONS + 0.03 * np.arange(9).reshape(3, 3) ** 0.5, 2e-3
        forces = label(x)[1]
        for k in range(9):
            shift = step * np.eye(9)[k].reshape(3, 3)
            slope = (label(x + shift)[0] - label(x - shift)[0]) / (2 * step)
            assert forces.flat[k] == pytest.approx(-slope, abs=5e-4)

    def test_restart_changes_nothing(self) -> None:
        from mlip.datasets.generation.labelling import TBLite

        label = TBLite(Particles(WATER))
        label(WATER_POSITIONS)
        moved = WATER_POSITIONS + 0.02 * np.eye(3)
        near, fresh = label(moved, near=True), TBLite(Particles(WATER))(moved)
        assert near[0] == pytest.approx(fresh[0], abs=1e-5)
        np.testing.assert_allclose(near[1], fresh[1], atol=3e-4)

    def test_hessian_does_not_feel_translation(self) -> None:
        from mlip.datasets.generation.labelling import TBLite

        matrix = hessian(TBLite(Particles(WATER)), WATER_POSITIONS)
        np.testing.assert_allclose(matrix, matrix.T)
        np.testing.assert_allclose(matrix.reshape(9, 3, 3).sum(axis=1), 0.0, atol=0.05)

    def test_charge_and_spin(self) -> None:
        from mlip.datasets.generation.labelling import TBLite

        lone = np.zeros((1, 3))
        neutral = TBLite(Particles(np.array([11]), spin=2))(lone)[0]
        assert TBLite(Particles(np.array([11]), charge=1))(lone)[0] > neutral + 3.0

    def test_unknown_element(self) -> None:
        from mlip.datasets.generation.labelling import TBLite

        with pytest.raises(InputError, match="not Z = 92"):
            TBLite(Particles(np.array([92])))


@pytest.mark.parametrize("failure", [CalculationFailed, InputError])
def test_ase_calculator_as_labeller(failure: type[Exception]) -> None:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.calculators.lj import LennardJones

    numbers = np.array([18, 18])
    label = ASELabels(Particles(numbers), LennardJones(sigma=3.4, epsilon=0.01))
    positions = np.array([[0.0, 0, 0], [0, 0, 3.6]])
    atoms = Atoms(numbers, positions, calculator=LennardJones(sigma=3.4, epsilon=0.01))
    assert label(positions)[0] == atoms.get_potential_energy()
    np.testing.assert_array_equal(label(positions)[1], atoms.get_forces())

    class Failing(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

        def calculate(self, *args: object, **kwargs: object) -> None:
            raise failure("no luck")

    with pytest.raises(LabelError, match="no luck"):
        ASELabels(Particles(numbers), Failing())(positions)


def test_relaxation_reaches_the_minimum_and_keeps_every_step() -> None:
    label = Springs(WATER_POSITIONS)
    start = WATER_POSITIONS + np.random.default_rng(0).normal(scale=0.1, size=(3, 3))
    path, converged = relax(label, start, steps=60)
    assert converged
    assert label.calls == len(path)
    np.testing.assert_allclose(distances(path[-1].positions), distances(WATER_POSITIONS), atol=2e-3)
    assert np.linalg.norm(path[-1].forces, axis=1).max() < 0.02
    steps = [np.linalg.norm(b.positions - a.positions, axis=1).max() for a, b in pairwise(path)]
    assert max(steps) < 0.1 + 1e-9
    guided, converged = relax(label, start, steps=60, guess=hessian(label, WATER_POSITIONS))
    assert converged
    np.testing.assert_allclose(distances(guided[-1].positions), distances(WATER_POSITIONS), atol=2e-3)


def test_push_moves_a_bond_to_where_the_forces_balance() -> None:
    label = Springs(np.array([[0.0, 0, 0], [1.0, 0, 0]]))
    push = Push(0, 1, 3.0, (0.1, 5.0))
    path, converged = relax(label, np.array([[0.0, 0, 0], [1.0, 0, 0]]), steps=60, push=push)
    assert converged
    assert distances(path[-1].positions)[0, 1] == pytest.approx(1 - 3.0 / STIFFNESS, abs=1e-3)
    assert np.linalg.norm(path[-1].forces[0]) == pytest.approx(3.0, abs=0.03)  # labels are without the push
    path, converged = relax(label, path[0].positions, steps=60, push=Push(0, 1, -90.0, (0.1, 1.5)))
    assert not converged
    assert distances(path[-1].positions)[0, 1] > 1.5


@pytest.mark.parametrize(("length", "count"), [(1, 5), (5, 5), (40, 6)])
def test_kept_steps(length: int, count: int) -> None:
    found = kept(length, count).tolist()
    assert found[0] == 0
    assert found[-1] == length - 1
    assert len(found) == min(length, count)
    assert found == sorted(set(found))


def test_thermal_samples_obey_equipartition() -> None:
    numbers, positions = np.array([6, 8]), np.array([[0.0, 0, 0], [1.1, 0, 0]])
    curvature = hessian(Springs(positions), positions)
    sample, rng = thermal_modes(numbers, positions, curvature), np.random.default_rng(0)
    drawn = np.array([sample(rng, 600.0) for _ in range(4000)])
    length = np.linalg.norm(drawn[:, 0] - drawn[:, 1], axis=1)
    assert np.var(length) == pytest.approx(kB * 600 / STIFFNESS, rel=0.06)
    centre = (drawn * atomic_masses[numbers][:, None]).sum(axis=1) / atomic_masses[numbers].sum()
    np.testing.assert_allclose(centre, np.broadcast_to(centre[0], centre.shape), atol=1e-9)


def test_dynamics_keeps_the_temperature() -> None:
    """Six springs, harmonic for small motions: half of kT each."""
    positions = 1.5 * np.array([[0.0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    label, rng = Springs(positions), np.random.default_rng(1)
    numbers = np.array([6, 8, 7, 6])
    run = dynamics(label, numbers, positions, rng, temperature=300.0, frames=400, interval=20)
    assert len(run) == 400
    assert np.mean([energy for _, energy, _ in run]) == pytest.approx(6 * 0.5 * kB * 300, rel=0.15)
    np.testing.assert_allclose(run[7][2], label(run[7][0])[1])


def ethane_like() -> tuple[Topology, Array]:
    pytest.importorskip("rdkit")
    from mlip.datasets.generation.force_field import embed, parse

    mol, (positions,) = embed(parse("CCO"), 1, 1)
    return Topology.of_mol(mol), positions


def test_stretching_changes_one_bond_and_twisting_none() -> None:
    topology, positions = ethane_like()
    bonds, rng = topology.bonds.T, np.random.default_rng(3)
    before = distances(positions)[bonds[0], bonds[1]]
    for _ in range(20):
        after = distances(stretched(rng, topology, positions))[bonds[0], bonds[1]] / before
        assert (np.abs(after - 1) > 0.15).sum() <= 1
        assert after.min() > 0.6
        assert after.max() < 2.0
    turned = [t for _ in range(20) if (t := twisted(rng, topology, positions)) is not None]
    assert turned
    for geometry in turned:
        np.testing.assert_allclose(distances(geometry)[bonds[0], bonds[1]], before, atol=0.15)
        assert topology.intact(geometry)
    assert all(np.std(rattled(rng, positions) - positions) < 0.3 for _ in range(20))


@pytest.mark.parametrize("contact", [0.6, 1.0, 1.4])
def test_placed_molecules_touch_and_keep_their_shape(contact: float) -> None:
    rng, chiral = np.random.default_rng(5), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1.2, 0], [0, 0, 1.4]])
    numbers = np.array([6, 1, 9, 17])
    for _ in range(10):
        both = placed(rng, [(numbers, chiral), (WATER, WATER_POSITIONS)], contact)
        np.testing.assert_allclose(distances(both[:4]), distances(chiral), atol=1e-9)
        arms = both[1:4] - both[0]
        assert np.linalg.det(arms) == pytest.approx(np.linalg.det(chiral[1:]))  # never its mirror image
        ratio = np.linalg.norm(both[:4, None] - both[4:], axis=-1)
        ratio /= vdw_radii[numbers][:, None] + vdw_radii[WATER]
        assert contact - 0.02 < ratio.min() <= contact


def test_topology_of_a_geometry() -> None:
    topology = Topology.of_geometry(WATER, WATER_POSITIONS)
    assert topology.bonds.tolist() == [[0, 1], [0, 2]]
    assert not topology.ring_bond.any()
    assert topology.side(0).tolist() == [1]
    triangle = np.array([[0.0, 0, 0], [1.5, 0, 0], [0.75, 1.3, 0], [-0.9, -0.6, 0]])
    ring = Topology.of_geometry(np.array([6, 6, 6, 1]), triangle)
    assert ring.ring_bond.sum() == 3
    pair = Topology.joined([topology, ring])
    assert pair.adjacency.sum() == 2 * (2 + 4)
    assert not pair.adjacency[:3, 3:].any()


def test_interpolation_goes_evenly_and_keeps_atoms_apart() -> None:
    """A hydrogen that goes to the other side of a carbon would run through it on a straight line."""
    first = np.array([[0.0, 0, 0], [0, 0, 1.4], [1.1, 0, 0]])
    last = np.array([[0.0, 0, 0], [0, 0, 1.4], [-1.1, 0, 0.0]]) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    images = interpolated(first, last + 5.0, 5)
    assert len(images) == 5
    for image in images:
        assert distances(image)[0, 2] == pytest.approx(1.1, abs=0.05)
    rounds = refined_path(Springs(first), images, (first, first), np.eye(9) * STIFFNESS, rounds=2)
    assert [len(r) for r in rounds] == [5, 5]
    np.testing.assert_array_equal(rounds[0][2].positions, images[2])


def test_pushes_are_across_where_two_molecules_are() -> None:
    pair = Topology.joined([Topology.of_geometry(WATER, WATER_POSITIONS)] * 2)
    both = np.concatenate([WATER_POSITIONS, WATER_POSITIONS + np.array([0.0, 0.0, 3.0])])
    for seed in range(20):
        push = random_push(np.random.default_rng(seed), pair, both, between=3)
        assert push.first < 3 <= push.second
        assert push.force > 0
        assert push.limits[0] < sum(covalent_radii[pair.numbers[[push.first, push.second]]])


def test_collector_discards_and_counts() -> None:
    out = Collector(Springs(WATER_POSITIONS))
    assert out.add(Note("rattled"), None) is None
    assert out.add(Note("rattled"), WATER_POSITIONS * 0.2) is None
    assert out.add(Note("rattled"), WATER_POSITIONS * 3.0) is None
    index = out.add(Note("rattled"), WATER_POSITIONS)
    assert out.discarded == {"nuclei too close": 1, "force above limit": 1}
    out.add_hessian(index)
    frame = Labelled(WATER_POSITIONS, 0.0, np.zeros((3, 3)))
    last = out.add_path([frame] * 4, 3, kinds=("start", "relaxation", "minimum"), reaction="r")
    assert [n.kind for n in out.notes] == ["rattled", "start", "relaxation", "minimum"]
    assert [n.step for n in out.notes] == [-1, 0, 1, 3]
    assert last == 3
    assert list(out.hessians) == [0]
    np.testing.assert_allclose(out.hessians[0], out.hessians[0].T)
