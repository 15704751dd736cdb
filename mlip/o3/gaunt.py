"""Gaunt coefficients: integrals of three real spherical harmonics."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import lebedev_rule
from torch import Tensor

from mlip.errors import InputError
from mlip.o3.harmonics import spherical_harmonics

# Degrees for which SciPy tabulates a Lebedev rule.
LEBEDEV_DEGREES = (*range(3, 33, 2), *range(35, 132, 6))


def lebedev(degree: int) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
    """Points on the unit sphere and weights that sum to one, exact for polynomials up to `degree`.

    Raises:
        InputError: If SciPy has no rule of that degree (131 is the largest).

    Source: V. I. Lebedev and D. N. Laikov, Dokl. Math. 59, 477 (1999), as tabulated by SciPy.
    """
    usable = [d for d in LEBEDEV_DEGREES if d >= degree]
    if not usable:
        raise InputError(f"`degree` is {degree} but Lebedev rules end at {LEBEDEV_DEGREES[-1]}")
    points, weights = lebedev_rule(usable[0])
    return torch.from_numpy(np.ascontiguousarray(points.T)), torch.from_numpy(weights / (4 * math.pi))


def gaunt(l1: int, l2: int, l3: int) -> Float[Tensor, "m1 m2 m3"]:
    r"""$\int Y_{l_1 m_1} Y_{l_2 m_2} Y_{l_3 m_3}\,d\Omega/4\pi$ with component-normalised harmonics.

    A multiple of `clebsch_gordan` when $l_1+l_2+l_3$ is even and the triangle inequality holds,
    zero otherwise. Symmetric under any permutation. Evaluated on a Lebedev rule of sufficient
    degree, hence exact to rounding.

    Raises:
        InputError: If a degree is negative.
    """
    slices = [slice(l * l, (l + 1) ** 2) for l in (l1, l2, l3)]
    return gaunt_tensor(l1, l2, l3)[slices[0], slices[1], slices[2]]


@functools.cache
def gaunt_tensor(lmax_x: int, lmax_y: int, lmax_z: int) -> Float[Tensor, "dx dy dz"]:
    r"""The integrals for all degrees up to the three maxima, $d = (l_{max}+1)^2$; cached, do not modify."""
    if min(lmax_x, lmax_y, lmax_z) < 0:
        raise InputError(f"degrees are ({lmax_x}, {lmax_y}, {lmax_z}) but none may be negative")
    points, weights = lebedev(lmax_x + lmax_y + lmax_z)
    harmonics = spherical_harmonics(points, max(lmax_x, lmax_y, lmax_z))
    x, y, z = (harmonics[:, : (l + 1) ** 2] for l in (lmax_x, lmax_y, lmax_z))
    tensor = torch.einsum("p,pi,pj,pk->ijk", weights, x, y, z)
    return torch.where(tensor.abs() < 1e-13, torch.zeros_like(tensor), tensor)
