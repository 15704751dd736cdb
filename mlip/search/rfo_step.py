r"""Restricted steps of rational function optimisation, in the eigenbasis of a Hessian.

Around a point the energy is modelled by $E(s) = (\gamma \cdot s + \tfrac12 \sum h_i s_i^2) / (1 + s^T
s/\alpha)$ with $\gamma$ and $h$ the gradient and Hessian in the eigenbasis of the latter. Its stationary
point is $s_i = -\gamma_i / (h_i - \mu)$, where $\mu$ is the lowest root of $\mu + \alpha \sum
\gamma_i^2/(h_i - \mu) = 0$ (the lowest eigenvalue, times α, of the augmented Hessian), and so lies below
all $h_i$: the step goes downhill whatever the signs of $h$. To a saddle, one mode goes uphill with a μ of
its own. α = 1 unless that leaves the trust region; raising it shortens the step to the radius.

Sources: Banerjee, Adams, Simons, Shepard, J. Phys. Chem. 89, 52 (1985); Besalú, Bofill, Theor. Chem. Acc.
100, 265 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

LARGEST_LOG_ALPHA: Final = 60.0
"""Where the search for α ends; a step that is still too long is scaled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A step in the eigenbasis.

    Attributes:
        vector: Å.
        predicted_change: Of the energy by the quadratic model, eV.
        restricted: Whether the trust region shortened it.
    """

    vector: Float64[np.ndarray, " modes"]
    predicted_change: float
    restricted: bool


def restricted_step(
    values: Float64[np.ndarray, " modes"],
    gradient: Float64[np.ndarray, " modes"],
    radius: float,
    *,
    uphill: int | None = None,
) -> Step:
    """The step to a minimum, or to a saddle along one mode.

    Args:
        values: Eigenvalues h of the Hessian, eV/Å².
        gradient: In the eigenbasis, eV/Å.
        radius: Largest norm of the step, Å.
        uphill: Mode along which the energy is maximised; None for a minimum.
    """
    vector = _stationary(values, gradient, 1.0, uphill)
    restricted = float(np.linalg.norm(vector)) > radius
    if restricted:
        vector = _shortened(values, gradient, radius, uphill)
    change = float(gradient @ vector + 0.5 * values @ vector**2)
    return Step(vector=vector, predicted_change=change, restricted=restricted)


def _shortened(
    values: Float64[np.ndarray, " modes"],
    gradient: Float64[np.ndarray, " modes"],
    radius: float,
    uphill: int | None,
) -> Float64[np.ndarray, " modes"]:
    """The step whose α brings it to the radius; the norm falls as α rises."""
    from scipy.optimize import brentq

    def excess(log_alpha: float) -> float:
        return float(np.linalg.norm(_stationary(values, gradient, np.exp(log_alpha), uphill))) / radius - 1.0

    low, high = 0.0, 2.0
    while excess(high) > 0.0 and high < LARGEST_LOG_ALPHA:
        low, high = high, 2.0 * high
    if excess(high) < 0.0:
        high = float(brentq(excess, low, high, xtol=1e-6))
    vector = _stationary(values, gradient, np.exp(high), uphill)
    return vector * (radius / float(np.linalg.norm(vector)))


def _stationary(
    values: Float64[np.ndarray, " modes"],
    gradient: Float64[np.ndarray, " modes"],
    alpha: float,
    uphill: int | None,
) -> Float64[np.ndarray, " modes"]:
    """The stationary point of the rational model for a given α."""
    vector = np.zeros_like(gradient)
    down = np.arange(len(values)) != (-1 if uphill is None else uphill)
    vector[down] = _over(gradient[down], values[down] - lowest_root(values[down], gradient[down], alpha))
    if uphill is not None:
        h, g = values[uphill], gradient[uphill]
        vector[uphill] = _over(g, h - 0.5 * (h + np.sqrt(h * h + 4.0 * alpha * g * g)))
    return vector


def _over(
    gradient: Float64[np.ndarray, " modes"], gap: Float64[np.ndarray, " modes"]
) -> Float64[np.ndarray, " modes"]:
    """−γ/(h − μ); zero where γ is: a mode that the gradient does not see by symmetry stays at rest."""
    return np.where(gradient == 0.0, 0.0, -gradient / np.where(gap == 0.0, 1.0, gap))


def lowest_root(
    values: Float64[np.ndarray, " modes"], gradient: Float64[np.ndarray, " modes"], alpha: float
) -> float:
    """μ, the lowest root of μ + α Σ γᵢ²/(hᵢ − μ), which is α times the lowest eigenvalue of the augmented
    Hessian [[h/α, γ/√α], [γᵀ/√α, 0]]; modes with γ = 0 take no part."""
    seen = gradient != 0.0
    if not seen.any():
        return 0.0
    h, squares = values[seen], alpha * gradient[seen] ** 2
    # rising and convex left of all h: Newton falls onto the root from its right, where the lowest of the
    # roots for one mode alone lies (interlacing)
    root = float((0.5 * (h - np.sqrt(h * h + 4.0 * squares))).min())
    for _ in range(100):
        gap = h - root
        if not gap.all():  # the gradient along that mode is next to nothing
            break
        lower = root - float(root + (squares / gap).sum()) / (1.0 + float((squares / gap**2).sum()))
        if not lower < root - 1e-13 * abs(root):
            break
        root = lower
    return root
