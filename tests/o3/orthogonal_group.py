"""Hypothesis strategy for the whole of O(3), and tolerances."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

TOLERANCE = 1e-12


def _matrix(quaternion: tuple[float, float, float, float], sign: int) -> torch.Tensor:
    a, b, c, d = (q / math.sqrt(sum(p * p for p in quaternion)) for q in quaternion)
    rows = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    return sign * torch.tensor(rows, dtype=torch.float64)


_component = st.floats(-1, 1, allow_nan=False, allow_subnormal=False)
_quaternions = st.tuples(*[_component] * 4).filter(lambda q: sum(x * x for x in q) > 1e-2)

rotations = st.builds(_matrix, _quaternions, st.just(1))
orthogonal_matrices = st.builds(_matrix, _quaternions, st.sampled_from([1, -1]))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal float64 tensor."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation relative to the largest expected value."""
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())
