"""Real spherical harmonics by recurrence, smooth to every order away from the origin."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.errors import InputError


def spherical_harmonics(
    vectors: Float[Tensor, "... 3"], lmax: int, *, normalize: bool = True
) -> Float[Tensor, "... components"]:
    r"""Real spherical harmonics $Y_{lm}$ of all degrees 0 … lmax, "component" normalised.

    $|Y_l(\hat r)|^2 = 2l+1$, so the mean of every $Y_{lm}^2$ over the sphere is one. No
    Condon–Shortley phase; polar axis y, so $Y_1 = \sqrt3\,(x, y, z)$. Component $m$ of degree $l$ is at
    index $l^2 + l + m$, $m = -l \dots l$. The numbers equal those of
    ``e3nn.o3.spherical_harmonics(normalization="component")``.

    With $(X, Y, Z) = (z, x, y)$ each harmonic is $Q_{lm}(Z, r^2)$ times the real ($m \ge 0$) or
    imaginary ($m < 0$) part of $(X + iY)^{|m|}$, and the normalised $Q_{lm}$ obey the three-term
    recurrence of the associated Legendre functions.

    Args:
        vectors: Vectors of any length but zero (a zero vector gives NaN when normalising).
        lmax: Largest degree, at least 0.
        normalize: Divide by the length first; otherwise the result is the homogeneous polynomial
            $r^l\,Y_{lm}(\hat r)$.

    Returns:
        All degrees, concatenated along the last dimension: (lmax + 1)² components.

    Raises:
        InputError: If lmax is negative or the last dimension of `vectors` is not 3.

    Source: NIST Digital Library of Mathematical Functions, 14.10.3 and 14.30.
    """
    if lmax < 0:
        raise InputError(f"`lmax` is {lmax} but must be at least 0")
    if vectors.ndim == 0 or vectors.shape[-1] != 3:
        raise InputError(f"`vectors` has shape {tuple(vectors.shape)} but its last dimension must be 3")
    squared = (vectors * vectors).sum(-1, keepdim=True) if lmax > 1 or normalize else None
    if normalize and squared is not None:
        vectors = vectors * squared.rsqrt()
        r2 = None
    else:
        r2 = squared.squeeze(-1) if squared is not None else None
    sine, cosine = vectors[..., 0], vectors[..., 2]
    polar = vectors[..., 1]
    columns: list[Tensor] = [torch.ones_like(polar)] * (lmax + 1) ** 2
    powers = _azimuthal(cosine, sine, lmax)
    for m in range(lmax + 1):
        legendre = _legendre(polar, r2, m, lmax)
        for l, factor in enumerate(legendre, start=m):
            centre = l * l + l
            if m == 0:
                if isinstance(factor, Tensor):
                    columns[centre] = factor
            else:
                columns[centre + m] = powers[m][0] * factor
                columns[centre - m] = powers[m][1] * factor
    return torch.stack(columns, dim=-1)


def _azimuthal(x: Tensor, y: Tensor, lmax: int) -> list[tuple[Tensor, Tensor]]:
    """Real and imaginary part of $(x + iy)^m$ for m = 0 … lmax (entry 0 is a placeholder)."""
    powers = [(x, y), (x, y)]
    for _ in range(2, lmax + 1):
        real, imaginary = powers[-1]
        powers.append(
            (torch.addcmul(x * real, y, imaginary, value=-1.0), torch.addcmul(x * imaginary, y, real))
        )
    return powers


def _legendre(z: Tensor, r2: Tensor | None, m: int, lmax: int) -> list[Tensor | float]:
    r"""Normalised $Q_{lm}(z, r^2)$ for l = m … lmax; the first is a constant; r2 None means 1."""
    start = math.sqrt((2 * m + 1) * (1 if m == 0 else 2) / math.factorial(2 * m)) * _double_factorial(
        2 * m - 1
    )
    values: list[Tensor | float] = [start]
    for l in range(m + 1, lmax + 1):
        a = math.sqrt((4 * l * l - 1) / (l * l - m * m))
        if l == m + 1:
            values.append(z * (a * start))
            continue
        b = a * math.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
        previous, older = values[-1], values[-2]
        if isinstance(older, Tensor):
            correction = older * (-b) if r2 is None else older * r2 * (-b)
            values.append(torch.add(correction, z * previous, alpha=a))
        elif r2 is None:
            values.append(z * previous * a - b * older)
        else:
            values.append(z * previous * a - r2 * (b * older))
    return values


def _double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))
