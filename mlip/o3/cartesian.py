"""Harmonics of degree 2 as matrices; those of degree 1 are vectors already, in the order x y z."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from mlip.o3.harmonics import spherical_harmonics


def tensor_matrix() -> Float64[Tensor, "3 3 5"]:
    r"""Symmetric traceless matrices $Q_m$ with $\hat r^T Q_m \hat r = Y_{2m}(\hat r)$.

    A feature x of degree 2 is the matrix $\sum_m Q_m x_m$, which turns as a matrix when x turns.
    """
    axes = torch.eye(3, dtype=torch.float64)
    diagonal = spherical_harmonics(axes, 2)[:, 4:9]
    matrix = torch.zeros(3, 3, 5, dtype=torch.float64)
    for i in range(3):
        matrix[i, i] = diagonal[i]
        for j in range(i):
            # on (e_i + e_j) / sqrt 2 the quadratic form is the mean of the diagonal plus the element
            between = (axes[i] + axes[j])[None] / 2**0.5
            value = spherical_harmonics(between, 2)[0, 4:9] - (diagonal[i] + diagonal[j]) / 2
            matrix[i, j] = matrix[j, i] = value
    return matrix
