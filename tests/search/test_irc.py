"""The path down from a saddle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from known_surfaces import LennardJones, Plane, at, leps_oscillator, ring, where

from mlip.errors import InputError
from mlip.search.irc import downhill_mode, path_search, quadratic_descent, reaction_path
from mlip.search.lockstep import run
from mlip.search.stationary import find_saddles


def ring_saddle():
    (saddle,) = find_saddles([at(0.05, 1.02)], Plane(ring), fmax=1e-8)
    return saddle


def followed(step: float, hessians: str = "true"):
    return run(Plane(ring), [path_search(ring_saddle(), hessians=hessians, step=step)])[0]


def test_ring_is_followed_at_second_order() -> None:
    """Steepest descent from (0, 1) is the unit circle; halving the step quarters the distance from it."""
    errors = []
    for step in (0.1, 0.05):
        path = followed(step)
        for branch in (path.backward, path.forward):
            radii = np.array([np.hypot(*where(atoms)) for atoms in branch.structures])
            assert branch.finished
            np.testing.assert_allclose(np.abs(where(branch.end.atoms)), (1.0, 0.0), atol=5e-3)
            assert branch.arc[-1] == pytest.approx(np.pi / 2.0, abs=step)
            assert (np.diff(branch.energies) < 1e-3).all()
        errors.append(np.abs(radii[2:] - 1.0).max())
    assert errors[0] < 0.01
    assert errors[1] < errors[0] / 3.5
    sides = [where(branch.end.atoms)[0] for branch in (path.backward, path.forward)]
    assert sorted(np.round(sides)) == [-1.0, 1.0]
    assert len(path.structures) == len(path.energies) == len(path.arc)
    assert (np.diff(path.arc) > 0.0).all()
    assert path.energies.argmax() == len(path.backward.structures)


def test_updated_hessians_stay_near_the_path() -> None:
    path = followed(0.05, hessians="none")
    for branch in (path.backward, path.forward):
        radii = np.array([np.hypot(*where(atoms)) for atoms in branch.structures])
        np.testing.assert_allclose(radii, 1.0, atol=0.03)
        np.testing.assert_allclose(np.abs(where(branch.end.atoms)), (1.0, 0.0), atol=5e-3)


def test_leps_oscillator_connects_its_minima() -> None:
    (saddle,) = find_saddles([at(1.9, 0.1)], Plane(leps_oscillator), fmax=1e-6)
    path = reaction_path(saddle, Plane(leps_oscillator))
    ends = sorted(where(branch.end.atoms).tolist() for branch in (path.backward, path.forward))
    np.testing.assert_allclose(ends, [(0.7415, 1.3034), (3.0013, -1.3043)], atol=0.02)


def test_masses_bend_the_path() -> None:
    """A heavier atom: longer in mass-weighted coordinates by √m, over the same places."""
    (light,) = find_saddles([at(0.05, 1.02)], Plane(ring), fmax=1e-8)
    (heavy,) = find_saddles([at(0.05, 1.02, mass=4.0)], Plane(ring), fmax=1e-8)
    lengths = []
    for saddle, step in ((light, 0.05), (heavy, 0.1)):
        path = run(Plane(ring), [path_search(saddle, hessians="true", step=step)])[0]
        lengths.append(path.forward.arc[-1])
    assert lengths[1] == pytest.approx(2.0 * lengths[0], rel=0.05)


def test_quadratic_descent_is_exact_on_a_quadratic_surface() -> None:
    """Against the differential equation dq/ds = −g/|g|, integrated with small steps."""
    atoms = at(0.3, 0.4)
    hessian = np.zeros((12, 12))
    hessian[9:11, 9:11] = [[3.0, 0.5], [0.5, -1.0]]
    slope = np.array([0.4, -0.2])
    gradient = np.zeros(12)
    gradient[9:11] = slope
    place, local = np.zeros(2), slope.copy()
    for _ in range(20000):
        place = place - local / np.linalg.norm(local) * (0.2 / 20000)
        local = slope + hessian[9:11, 9:11] @ place
    move = quadratic_descent(atoms, gradient, hessian, 0.2)
    np.testing.assert_allclose(move[9:11], place, atol=2e-5)
    assert not move[:9].any()


def test_lennard_jones_rhombus_connects_two_tetrahedra() -> None:
    start = Atoms("Ar4", positions=[[0, 0, 0], [1.1, 0, 0], [0.55, 0.95, 0], [0.6, -0.9, 0.03]])
    (saddle,) = find_saddles([start], LennardJones(), fmax=1e-6, exact_every=1)
    path = reaction_path(saddle, LennardJones(), step=0.3)
    for branch in (path.backward, path.forward):
        assert branch.end.energy == pytest.approx(-6.0, abs=1e-4)


def test_refusals() -> None:
    saddle = ring_saddle()
    with pytest.raises(InputError, match="updated, not computed there"):
        downhill_mode(replace(saddle, exact=False))
    with pytest.raises(InputError, match="no negative mode"):
        downhill_mode(replace(saddle, hessian=np.eye(12)))
    with pytest.raises(InputError, match=r"several imaginary modes, .*i cm⁻¹"):
        downhill_mode(replace(saddle, hessian=-np.eye(12)))
    with pytest.raises(InputError, match="both must be positive"):
        reaction_path(saddle, Plane(ring), step=0.0)
