"""Functions of a distance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def bessel(r: Float[Tensor, " n"], cutoff: float, num: int) -> Float[Tensor, "n {num}"]:
    r"""Radial Bessel functions $\sqrt{2/r_c}\,\sin(n\pi r/r_c)/r$, $n = 1 \dots$ num; r in Å, may be 0.

    Source: Gasteiger et al. 2020, arXiv:2003.03123.
    """
    n = torch.arange(1, num + 1, dtype=r.dtype, device=r.device)
    return math.sqrt(2 / cutoff) * (n * math.pi / cutoff) * torch.sinc(n * r[:, None] / cutoff)


def polynomial_envelope(x: Float[Tensor, " n"], p: int = 6) -> Float[Tensor, " n"]:
    """1 at x = 0, and 0 with two derivatives at x = 1 (x = r / cutoff).

    Source: Gasteiger et al. 2020, arXiv:2003.03123, eq. 8.
    """
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2.0), -p * (p + 1) / 2
    x = x.clamp(0, 1)
    return 1 + a * x**p + b * x ** (p + 1) + c * x ** (p + 2)


def polynomial_envelope_slope(x: Float[Tensor, " n"], p: int = 6) -> Float[Tensor, " n"]:
    """Derivative of `polynomial_envelope` by x."""
    x = x.clamp(0, 1)
    return -p * (p + 1) * (p + 2) / 2 * x ** (p - 1) * (1 - x) ** 2
