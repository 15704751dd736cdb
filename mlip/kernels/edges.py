"""Harmonics and radial basis of the edges."""
from __future__ import annotations

from torch import Tensor

from mlip.nn.radial import SplineBasis
from mlip.o3.harmonics import spherical_harmonics


def edge_basis(edge_vectors: Tensor, basis: SplineBasis, lmax: int) -> tuple[Tensor, Tensor, Tensor]:
    y = spherical_harmonics(edge_vectors, lmax)
    beta, interval = basis(edge_vectors.norm(dim=-1))
    return y, beta, interval
