"""Minima and saddles by RFO, on surfaces where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators import lj
from ase.calculators.emt import EMT
from ase.constraints import FixBondLength
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from known_surfaces import (
    MULLER_BROWN_MINIMA,
    MULLER_BROWN_SADDLES,
    PLACES,
    LennardJones,
    Plane,
    at,
    leps,
    leps_oscillator,
    muller_brown,
    ring,
    where,
)

from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search.lockstep import run
from mlip.search.model_hessian import FLOOR, model_hessian
from mlip.search.rfo import RFO
from mlip.search.stationary import find_minima, find_saddles, minimum_search

EXACT = {"fmax": 1e-6}


def calculator() -> lj.LennardJones:
    return lj.LennardJones(sigma=1.0, epsilon=1.0, rc=100.0)


def curvatures(point) -> np.ndarray:
    return np.linalg.eigvalsh(point.hessian[PLACES])


@pytest.mark.parametrize("exact_every", [1, 3, 0])
def test_muller_brown(exact_every: int) -> None:
    surface = Plane(muller_brown)
    starts = [at(-0.75, 0.7), at(0.3, 0.25)]
    found = find_saddles(starts, surface, exact_every=exact_every, **EXACT)
    for point, (place, energy, modes) in zip(found, MULLER_BROWN_SADDLES.values(), strict=True):
        assert point.converged
        assert point.exact
        assert point.steps < 12
        np.testing.assert_allclose(where(point.atoms), place, atol=2e-8)
        assert point.energy == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(curvatures(point), modes, rtol=1e-4)
    assert surface.calls < 40  # all in one batch


def test_muller_brown_minima() -> None:
    starts = [at(-0.7, 1.3), at(0.0, 0.5), at(0.5, 0.0)]
    found = find_minima(starts, Plane(muller_brown), **EXACT)
    for point, (place, energy, _) in zip(found, MULLER_BROWN_MINIMA.values(), strict=True):
        assert point.converged
        np.testing.assert_allclose(where(point.atoms), place, atol=2e-8)
        assert point.energy == pytest.approx(energy, abs=1e-6)


def test_leps() -> None:
    (point,) = find_saddles([at(1.05, 0.95)], Plane(leps), **EXACT)
    np.testing.assert_allclose(where(point.atoms), (1.149377993, 0.862468770), atol=1e-7)
    assert point.energy == pytest.approx(-3.176913087, abs=1e-8)
    np.testing.assert_allclose(curvatures(point), (-6.09316, 13.69539), atol=2e-5)
    (point,) = find_saddles([at(1.9, 0.1)], Plane(leps_oscillator), **EXACT)
    np.testing.assert_allclose(where(point.atoms), (2.020827734, -0.172901205), atol=2e-6)
    assert point.energy == pytest.approx(-0.875224679, abs=1e-8)


def test_ring_and_double_well() -> None:
    (point,) = find_saddles([at(0.1, 1.05)], Plane(ring), **EXACT)
    np.testing.assert_allclose(where(point.atoms), (0.0, 1.0), atol=1e-7)
    np.testing.assert_allclose(curvatures(point), (-2.0, 50.0), atol=1e-5)
    wells = Plane(lambda x, y: (x * x - 1.0) ** 2 + 0.0 * y)
    (point,) = find_saddles([at(0.3, only_x=True)], wells, **EXACT)
    assert point.hessian[9, 9] == pytest.approx(-4.0)
    assert where(point.atoms)[0] == pytest.approx(0.0, abs=1e-6)


def test_a_named_direction_is_followed() -> None:
    """From between the two saddles of the ring-like path, each is reached along its own direction."""
    start = at(-0.4, 0.6)
    up, down = np.zeros((4, 3)), np.zeros((4, 3))
    up[3, :2], down[3, :2] = (1.0, -0.6), (0.6, 1.0)
    first, second = find_saddles([start, start], Plane(muller_brown), along=[up, down], steps=60)
    assert first.energy == pytest.approx(MULLER_BROWN_SADDLES["AB"][1], abs=0.01) or first.converged
    assert (first.atoms.positions != second.atoms.positions).any()


def cluster(number: int, seed: int, size: float) -> Atoms:
    positions = np.random.default_rng(seed).normal(size=(number, 3), scale=size)
    return Atoms(f"Ar{number}", positions=positions)


def test_lennard_jones_three() -> None:
    """The triangle, with its frequencies; the line has two negative modes and is left."""
    (triangle,) = find_minima([cluster(3, 0, 0.8)], LennardJones(), fmax=1e-8, steps=400)
    assert triangle.energy == pytest.approx(-3.0, abs=1e-9)
    line = Atoms("Ar3", positions=[[0, 0, 0], [1.121029938, 0, 0], [2.242059876, 0, 0]])
    (left,) = find_saddles([line], LennardJones(), fmax=1e-6, steps=0)
    assert not left.converged
    assert "surplus negative modes" in left.why
    modes = np.linalg.eigvalsh(left.hessian)
    np.testing.assert_allclose(modes[modes < -0.01], [-0.221969, -0.221969], atol=1e-5)
    assert left.energy == pytest.approx(-2.031124130, abs=1e-8)


@pytest.mark.parametrize(
    ("start", "energy", "lowest"),
    [
        ([[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0], [0.6, -0.9, 0.03]], -5.073420859, -0.464874),
        (
            [[0, 0, 0], [1.15, 0, 0], [0, 1.15, 0], [1.15, 1.15, 0]],  # from the square, of index 2
            -5.073420859,
            -0.464874,
        ),
    ],
)
def test_lennard_jones_four(start, energy: float, lowest: float) -> None:
    atoms = Atoms("Ar4", positions=start)
    (point,) = find_saddles([atoms], LennardJones(), fmax=1e-6, exact_every=1)
    assert point.converged, point.why
    assert point.energy == pytest.approx(energy, abs=1e-8)
    inside = rigid_motions(point.atoms, mass_weighted=False).complement
    assert np.linalg.eigvalsh(inside @ point.hessian @ inside.T)[0] == pytest.approx(lowest, abs=1e-5)


def test_lennard_jones_seven() -> None:
    """Random starts end in known minima only, and climbing from their neighbourhoods in known saddles."""
    minima = (-16.50538417, -15.93504306, -15.59321094, -15.53306005)
    starts = [minimum_search(cluster(7, s, 0.75), fmax=1e-6, steps=60, exact_every=1) for s in range(4)]
    found = run(LennardJones(), starts)
    for point in found:
        assert point.converged
        assert min(abs(point.energy - energy) for energy in minima) < 1e-6
    saddles = (-15.44473380, -15.31986444, -15.28342128)
    starts = []
    for seed in range(3):
        atoms = found[0].atoms.copy()
        atoms.rattle(0.15, seed=seed)
        starts.append(atoms)
    climbed = find_saddles(starts, LennardJones(), fmax=1e-6, exact_every=1)
    assert any(point.converged for point in climbed)
    for point in climbed:
        if point.converged and point.energy < -15.25:
            assert min(abs(point.energy - energy) for energy in saddles) < 1e-6


def test_model_hessian_knows_rigid_motions() -> None:
    """Springs on distances, angles and dihedrals resist neither shift nor turn."""
    atoms = molecule("CH3CONH2")
    atoms.rattle(0.05, seed=3)
    hessian = model_hessian(atoms) - FLOOR * np.eye(3 * len(atoms))
    rigid = rigid_motions(atoms, mass_weighted=False)
    np.testing.assert_allclose(hessian @ rigid.removed.T, 0.0, atol=1e-10)
    inside = np.linalg.eigvalsh(rigid.complement @ hessian @ rigid.complement.T)
    assert inside[0] > 0.1  # nothing but those
    assert 100.0 < inside[-1] < 400.0
    crystal = model_hessian(bulk("Si", cubic=True))
    shifts = np.tile(np.eye(3), 8)
    np.testing.assert_allclose(crystal @ shifts.T, FLOOR * shifts.T, atol=1e-10)


def test_optimiser_needs_fewer_steps_than_bfgs() -> None:
    tblite = pytest.importorskip("tblite.ase")
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    steps = []
    for optimizer in (RFO, BFGS):
        atoms_now = atoms.copy()
        atoms_now.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        driver = optimizer(atoms_now, logfile=None)
        assert driver.run(fmax=0.02, steps=50)
        steps.append(driver.nsteps)
    assert steps[0] <= steps[1] / 2


def test_optimiser_takes_hessians_of_the_calculator() -> None:
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [1.2, 0, 0], [0.5, 1.1, 0.1]])
    atoms.calc = calculator()
    driver = RFO(atoms, logfile=None, hessian_every=1)
    assert driver.run(fmax=1e-8, steps=12)
    assert atoms.get_potential_energy() == pytest.approx(-3.0, abs=1e-10)


def test_optimiser_on_cells_and_other_constraints() -> None:
    crystal = bulk("Cu", a=3.7)
    crystal.calc = EMT()
    driver = RFO(FrechetCellFilter(crystal), logfile=None)
    assert driver.run(fmax=1e-4, steps=60)
    assert crystal.get_stress()[:3] == pytest.approx(0.0, abs=1e-4)
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.set_constraint(FixBondLength(0, 1))
    before = atoms.get_distance(0, 1)
    assert RFO(atoms, logfile=None).run(fmax=0.01, steps=100)
    assert atoms.get_distance(0, 1) == pytest.approx(before, abs=1e-6)


def test_optimiser_refuses() -> None:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    with pytest.raises(InputError, match="`restart` is set"):
        RFO(atoms, restart="file")
    with pytest.raises(InputError, match="`hessian_every` is -1"):
        RFO(atoms, hessian_every=-1)
    with pytest.raises(InputError, match="0 with a filter"):
        RFO(FrechetCellFilter(bulk("Cu")), hessian_every=1)


@pytest.mark.parametrize(
    ("options", "message"), [({"fmax": 0.0}, "`fmax` is 0.0"), ({"steps": -1}, "`steps`")]
)
def test_bad_demands(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_minima([cluster(3, 0, 1.0)], LennardJones(), **options)
    with pytest.raises(InputError, match=message):
        find_saddles([cluster(3, 0, 1.0)], LennardJones(), **options)
