"""Starting paths and elastic bands."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from known_surfaces import MULLER_BROWN_MINIMA, MULLER_BROWN_SADDLES, Plane, at, muller_brown, ring, where

from mlip.errors import InputError
from mlip.search.lockstep import run
from mlip.search.neb import band_search, tangents_and_springs
from mlip.search.paths import starting_paths, straight


def closest(path: np.ndarray) -> float:
    vectors = path[:, :, None] - path[:, None]
    distances = np.linalg.norm(vectors, axis=-1) + 9.0 * np.eye(path.shape[1])
    return float(distances.min())


def through() -> tuple[Atoms, Atoms]:
    """HCN and HNC on one line: on the straight path the hydrogen goes through both other atoms."""
    start = Atoms("HCN", [(-1.06, 0, 0), (0, 0, 0), (1.14, 0, 0)])
    return start, Atoms("HCN", [(2.15, 0, 0), (0, 0, 0), (1.16, 0, 0)])


def test_paths_keep_the_ends_and_avoid_collisions() -> None:
    start, end = through()
    assert closest(straight(start, end, 9)) < 0.3
    paths = starting_paths(start, end, 9)
    assert set(paths) == {"idpp", "geodesic", "grown geodesic"}
    for path in paths.values():
        assert path.shape == (9, 3, 3)
        np.testing.assert_allclose(path[0], start.positions, atol=1e-12)
        got, wanted = Atoms("HCN", path[-1]).get_all_distances(), end.get_all_distances()
        np.testing.assert_allclose(got, wanted, atol=1e-10)
        assert closest(path) > 0.4
    again = starting_paths(start, end, 9)
    np.testing.assert_array_equal(again["idpp"], paths["idpp"])


def test_idpp_interpolates_distances() -> None:
    """Where the straight line already does, nothing changes: a dimer pulled apart."""
    start, end = (Atoms("N2", [[0, 0, 0], [0, 0, d]]) for d in (1.1, 2.1))
    for name, path in starting_paths(start, end, 6).items():
        lengths = np.linalg.norm(path[:, 1] - path[:, 0], axis=1)
        assert (np.diff(lengths) > 0.0).all(), name
    lengths = np.linalg.norm(np.diff(starting_paths(start, end, 6)["idpp"], axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(lengths, np.linspace(1.1, 2.1, 6), atol=0.02)


def test_fixed_atoms_stay() -> None:
    path = starting_paths(at(-1.0, 0.01), at(1.0, 0.01), 5)["geodesic"]
    np.testing.assert_array_equal(path[:, :3], np.repeat(at(0.0).positions[None, :3], 5, axis=0))
    np.testing.assert_array_equal(path[:, 3, 2], 0.0)


def images_between(first: Atoms, last: Atoms, points: np.ndarray) -> list[Atoms]:
    images = [first.copy() for _ in range(len(points) + 2)]
    for image, point in zip(images[1:-1], points, strict=True):
        image.positions[3, :2] = point
    images[-1] = last.copy()
    return images


def test_band_on_muller_brown() -> None:
    """The climbing image ends on the saddle between A and B; a hundredth of the potential, in eV."""
    (a, energy_a, _), (b, energy_b, _) = (MULLER_BROWN_MINIMA[name] for name in "AB")
    fractions = np.linspace(0, 1, 9)[1:-1, None]
    guess = np.array(a) + fractions * (np.array(b) - np.array(a)) + np.sin(np.pi * fractions) * (-0.3, 0.0)
    images = images_between(at(*a), at(*b), guess)
    search = band_search(images, (energy_a / 100, energy_b / 100), fmax=0.005, iterations=400, look=False)
    (band,) = run(Plane(lambda x, y: muller_brown(x, y) / 100), [search])
    assert band.ready, band.why
    place, energy, _ = MULLER_BROWN_SADDLES["AB"]
    np.testing.assert_allclose(where(band.images[band.highest]), place, atol=2e-3)
    assert band.energies[band.highest] == pytest.approx(energy / 100, abs=1e-4)
    assert band.minima == []


@pytest.mark.parametrize("look", [False, True])
def test_band_on_the_ring(look: bool) -> None:
    """The path is the unit circle; with Hessians the band hands over as soon as its top is a saddle's."""
    angles = np.linspace(np.pi, 0.0, 9)[1:-1]
    guess = np.stack([np.cos(angles) + 0.05, 0.8 * np.sin(angles)], axis=1)
    images = images_between(at(-1.0, 0.0), at(1.0, 0.0), guess)
    surface = Plane(ring)
    search = band_search(images, (0.0, 0.0), fmax=0.01, fmax_others=0.1, iterations=300, look=look)
    (band,) = run(surface, [search])
    assert band.ready, band.why
    if look:
        assert band.iterations < 40
    else:
        radii = [np.hypot(*where(image)) for image in band.images]
        np.testing.assert_allclose(radii, 1.0, atol=0.01)
        assert band.energies.max() == pytest.approx(1.0, abs=1e-3)
    assert abs(band.tangent[3, 0]) > 0.9


def test_a_path_that_only_rises_has_its_top_at_the_end() -> None:
    surface = Plane(lambda x, y: x + y * y)
    images = images_between(at(0.0), at(1.0), np.array([[0.25, 0.1], [0.5, 0.1], [0.75, 0.1]]))
    (band,) = run(surface, [band_search(images, (0.0, 1.0), fmax=0.05, iterations=20, look=False)])
    assert band.highest == 4
    assert not band.ready


def test_tangents_point_along_the_path_uphill() -> None:
    positions = np.zeros((4, 1, 3))
    positions[:, 0, :2] = [[0, 0], [1, 0], [1, 1], [2, 1]]
    same = [lambda vectors: vectors] * 4
    rising, _ = tangents_and_springs(positions, np.array([0.0, 1.0, 2.0, 3.0]), same)
    np.testing.assert_allclose(rising[1, 0], (0, 1, 0))  # to the higher neighbour
    falling, _ = tangents_and_springs(positions, np.array([3.0, 2.0, 1.0, 0.0]), same)
    np.testing.assert_allclose(falling[1, 0], (1, 0, 0))
    top, _ = tangents_and_springs(positions, np.array([0.0, 2.0, 1.0, 0.0]), same)
    weights = np.array([1.0, 2.0, 0.0])  # the step to the higher neighbour, y, by the larger rise
    np.testing.assert_allclose(top[1, 0], weights / np.linalg.norm(weights))


def test_a_band_that_cannot_be_evaluated_says_so() -> None:
    class Broken:
        def evaluate(self, structures, *, stress=False, hessian=False):
            if any(atoms.positions[3, 1] != 0.1 for atoms in structures):
                raise InputError("no")
            return Plane(ring).evaluate(structures)

    images = images_between(at(0.0), at(2.0), np.array([[0.5, 0.1], [1.0, 0.1], [1.5, 0.1]]))
    (band,) = run(Broken(), [band_search(images, (0.0, 0.0), fmax=0.01, iterations=20, look=False)])
    assert not band.ready
    assert band.why == "the band ran into structures that cannot be evaluated: no"
