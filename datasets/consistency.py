r"""Do the forces and stresses derive from the energies? A test of signs, units and order without a model.

Between two frames $i, j$ with the same atoms, deformation $\varepsilon$ and remaining displacements $u$, to
second order

$$E_j - E_i = \bar V \bar\sigma : \varepsilon - \sum_a \bar F_a \cdot u_a, \qquad \bar x = (x_i + x_j)/2$$

(trapezoidal rule). The slope of a line through (right side, left side) of many such pairs is 1 in sound data,
−1 if gradients are stored as forces or pressures as stresses, 27.2 or 0.037 if one is in hartree and the
other in eV, and so on. A pair far off the line where all others are near it is a jump: a calculation that
fell into another electronic state, or did not converge. Shear components in another order fit better once
they are put into the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np

from mlip.datasets.frames import Frame

_LARGEST_STRAIN = 0.06
_LARGEST_STEP = 0.15  # Å
_FEWEST_PAIRS = 6
_SMALLEST_JUMP = 0.1  # eV
_ORDER_GAIN = 0.3
_SHEARS = ("yz", "xz", "xy")


@dataclass(frozen=True)
class Slope:
    """Result of the comparison.

    Attributes:
        slope: Of energy differences against those predicted; 1 in sound data.
        correlation: Between the two; the slope means something only near ±1.
        pairs: Number of pairs compared.
    """

    slope: float
    correlation: float
    pairs: int


@dataclass(frozen=True)
class Jump:
    """Two frames that follow each other, between which the energy jumps.

    Attributes:
        first: Place of the first frame.
        second: Place of the second.
        energy: By which the energy differs from what the forces say, eV.
    """

    first: int
    second: int
    energy: float


def force_slope(frames: Sequence[Frame]) -> Slope | None:
    """Compare forces with energies over successive frames of unchanged cell; None where too few."""
    pairs = ((frames[i], frames[j]) for i, j in _pairs(frames))
    return _slope([p for a, b in pairs if (p := _predict_by_forces(a, b)) is not None])


def stress_slope(frames: Sequence[Frame]) -> Slope | None:
    """Compare stresses with energies over successive frames of changed cell; None where too few."""
    return _slope(
        [(rest + float(stress @ strain), energy) for stress, strain, rest, energy in _strained(frames)]
    )


def energy_jumps(frames: Sequence[Frame]) -> list[Jump]:
    """Pairs whose energies fit the forces far worse than those of other pairs, where the others fit."""
    places, points = [], []
    for i, j in _pairs(frames):
        point = _predict_by_forces(frames[i], frames[j])
        if point is not None and np.isfinite(point).all():
            places.append((i, j))
            points.append(point)
    if len(points) < _FEWEST_PAIRS:
        return []
    expected, found = np.array(points).T
    off = found - expected
    typical = float(np.median(np.abs(off)))
    if typical > 0.5 * float(np.median(np.abs(found))):
        return []  # units, signs or noise: the slope speaks of that
    limit = max(15.0 * 1.4826 * typical, _SMALLEST_JUMP)
    return [Jump(*places[k], float(off[k])) for k in np.flatnonzero(np.abs(off) > limit).tolist()]


def shear_order(frames: Sequence[Frame]) -> tuple[str, str, str] | None:
    """In which order the three shear components seem to be stored as yz, xz, xy, if in another one.

    None where they are in order, or where the strains do not tell.
    """
    terms = _strained(frames)
    if len(terms) < _FEWEST_PAIRS:
        return None
    stress, strain = np.array([t[0] for t in terms]), np.array([t[1] for t in terms])
    aims = np.array([energy - rest for _, _, rest, energy in terms])
    aims -= np.einsum("ij,ij->i", stress[:, :3], strain[:, :3])
    errors = {
        order: float(np.square(aims - np.einsum("ij,ij->i", stress[:, 3:], strain[:, 3:][:, order])).sum())
        for order in permutations(range(3))
    }
    best = min(errors, key=lambda order: errors[order])
    if best == (0, 1, 2) or errors[best] > _ORDER_GAIN * errors[0, 1, 2]:
        return None
    return _SHEARS[best[0]], _SHEARS[best[1]], _SHEARS[best[2]]


def _pairs(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Places of frames that follow each other: of one group and trajectory, with the same atoms."""
    order = sorted(range(len(frames)), key=lambda i: (frames[i].trajectory, frames[i].step))
    return [(i, j) for i, j in pairwise(order) if _comparable(frames[i], frames[j])]


def _comparable(a: Frame, b: Frame) -> bool:
    return (
        (a.group, a.trajectory) == (b.group, b.trajectory)
        and a.energy is not None
        and b.energy is not None
        and np.array_equal(a.atomic_numbers, b.atomic_numbers)
        and np.array_equal(a.pbc, b.pbc)
    )


def _predict_by_forces(a: Frame, b: Frame) -> tuple[float, float] | None:
    if a.forces is None or b.forces is None or not np.allclose(a.cell, b.cell, atol=1e-9):
        return None
    step = _unwrapped(a, b.positions - a.positions)
    if not 0 < np.abs(step).max() < _LARGEST_STEP:
        return None
    return -0.5 * float(np.sum((a.forces + b.forces) * step)), _difference(a, b)


def _strained(frames: Sequence[Frame]) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Of each pair with another cell: stress (xx yy zz yz xz xy), what it multiplies in the energy, work of
    the forces, energy difference."""
    found = ((_strain(frames[i], frames[j]), frames[i], frames[j]) for i, j in _pairs(frames))
    return [(*terms, _difference(a, b)) for terms, a, b in found if terms is not None]


def _strain(a: Frame, b: Frame) -> tuple[np.ndarray, np.ndarray, float] | None:
    if a.stress is None or b.stress is None or not bool(a.pbc.all()) or min(a.volume, b.volume) < 1e-6:
        return None
    gradient = np.linalg.solve(a.cell, b.cell)
    strain = 0.5 * (gradient + gradient.T) - np.eye(3)
    if not 1e-6 < np.abs(strain).max() < _LARGEST_STRAIN:
        return None
    work = 0.0
    if a.forces is not None and b.forces is not None:
        step = _unwrapped(b, b.positions - a.positions @ gradient)
        if np.abs(step).max() > _LARGEST_STEP:
            return None
        work = -0.5 * float(np.sum((a.forces + b.forces) * step))
    conjugate = 0.5 * (a.volume + b.volume) * _voigt(strain) * [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    return _voigt(0.5 * (a.stress + b.stress)), conjugate, work


def _voigt(tensor: np.ndarray) -> np.ndarray:
    symmetric = 0.5 * (tensor + tensor.T)
    return symmetric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _unwrapped(frame: Frame, step: np.ndarray) -> np.ndarray:
    """Displacements without the lattice vectors that wrapping put in."""
    if not bool(frame.pbc.all()) or frame.volume < 1e-6:
        return step
    return step - np.round(step @ np.linalg.inv(frame.cell)) @ frame.cell


def _difference(a: Frame, b: Frame) -> float:
    return float(b.energy or 0.0) - float(a.energy or 0.0)


def _slope(points: list[tuple[float, float]]) -> Slope | None:
    if len(points) < _FEWEST_PAIRS:
        return None
    x, y = np.array(points).T
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or not x.any() or not y.any():
        return None
    xy = float(x @ y)
    return Slope(xy / float(x @ x), xy / float(np.sqrt((x @ x) * (y @ y))), len(points))
