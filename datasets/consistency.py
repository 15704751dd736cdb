r"""Do the forces and stresses derive from the energies? A test of signs and units that needs no model.

Between two frames $i, j$ with the same atoms, deformation $\varepsilon$ and remaining displacements $u$, to
second order

$$E_j - E_i = \bar V \bar\sigma : \varepsilon - \sum_a \bar F_a \cdot u_a, \qquad \bar x = (x_i + x_j)/2$$

(trapezoidal rule). The slope of a line through (right side, left side) of many such pairs is 1 in sound data,
−1 if gradients are stored as forces or pressures as stresses, 27.2 or 0.037 if one is in hartree and the
other in eV, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlip.datasets.frames import Frame

_LARGEST_STRAIN = 0.06
_LARGEST_STEP = 0.15  # Å
_FEWEST_PAIRS = 6


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


def force_slope(frames: Sequence[Frame]) -> Slope | None:
    """Compare forces with energies over successive frames of unchanged cell; None where too few."""
    return _slope([p for a, b in _pairs(frames) if (p := _predict_by_forces(a, b)) is not None])


def stress_slope(frames: Sequence[Frame]) -> Slope | None:
    """Compare stresses with energies over successive frames of changed cell; None where too few."""
    return _slope([p for a, b in _pairs(frames) if (p := _predict_by_stress(a, b)) is not None])


def _pairs(frames: Sequence[Frame]) -> list[tuple[Frame, Frame]]:
    """Frames that follow each other, of one group and with the same atoms."""
    return [
        (a, b)
        for a, b in pairwise(frames)
        if a.group == b.group
        and a.energy is not None
        and b.energy is not None
        and np.array_equal(a.atomic_numbers, b.atomic_numbers)
        and np.array_equal(a.pbc, b.pbc)
    ]


def _predict_by_forces(a: Frame, b: Frame) -> tuple[float, float] | None:
    if a.forces is None or b.forces is None or not np.allclose(a.cell, b.cell, atol=1e-9):
        return None
    step = _unwrapped(a, b.positions - a.positions)
    if not 0 < np.abs(step).max() < _LARGEST_STEP:
        return None
    return -0.5 * float(np.sum((a.forces + b.forces) * step)), _difference(a, b)


def _predict_by_stress(a: Frame, b: Frame) -> tuple[float, float] | None:
    if a.stress is None or b.stress is None or not bool(a.pbc.all()) or min(a.volume, b.volume) < 1e-6:
        return None
    gradient = np.linalg.solve(a.cell, b.cell)
    strain = 0.5 * (gradient + gradient.T) - np.eye(3)
    if not 1e-6 < np.abs(strain).max() < _LARGEST_STRAIN:
        return None
    work = 0.5 * (a.volume + b.volume) * 0.5 * float(np.sum((a.stress + b.stress) * strain))
    if a.forces is not None and b.forces is not None:
        step = _unwrapped(b, b.positions - a.positions @ gradient)
        if np.abs(step).max() > _LARGEST_STEP:
            return None
        work -= 0.5 * float(np.sum((a.forces + b.forces) * step))
    return work, _difference(a, b)


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
