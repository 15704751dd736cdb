"""Trust radius: how far the quadratic model of the energy is believed.

The norm of a step over all coordinates is bounded. After each step the change of the energy is compared
with the predicted one; the radius grows where they agree, shrinks where they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMALLEST: Final = 0.01
"""Å; the radius shrinks no further, or noise of the energy would stop a search for good."""

ENERGY_NOISE: Final = 1e-4
"""eV; where less is predicted, energies no longer tell and the gradients are asked: ½(g₀ + g₁)·s."""


@dataclass(frozen=True, kw_only=True)
class TrustRegion:
    """A trust radius and its rule.

    Attributes:
        radius: Å.
        largest: The radius grows no further, Å.
        two_sided: Whether a change larger than predicted is as bad as a smaller one. So it is on the way to a
            saddle, where up and down cancel; on the way to a minimum it is welcome.
    """

    radius: float
    largest: float
    two_sided: bool

    def after(self, *, predicted: float, actual: float, norm: float) -> tuple[TrustRegion, bool]:
        """The region after a step, and whether the step is to be kept.

        Args:
            predicted: Change of the energy by the quadratic model, eV.
            actual: Change of the energy found, eV.
            norm: Length of the step, Å.
        """
        if predicted == 0.0:
            return self, True
        quotient = actual / predicted
        if self.two_sided and quotient > 1.0:
            quotient = 2.0 - quotient
        at_boundary = norm > 0.8 * self.radius
        keep = quotient >= 0.0 or norm <= 1.001 * SMALLEST
        if quotient < 0.0:
            return self._with(min(norm, self.radius) / 3.0), keep
        if quotient < 0.25:
            return self._with(min(norm, self.radius) / 2.0), keep
        if quotient > 0.75 and at_boundary:
            return self._with(self.radius * (1.5 if self.two_sided else 2.0)), keep
        return self, keep

    def _with(self, radius: float) -> TrustRegion:
        return TrustRegion(
            radius=min(max(radius, SMALLEST), self.largest), largest=self.largest, two_sided=self.two_sided
        )


def energy_change(
    *, energies: tuple[float, float], gradients_along: tuple[float, float], predicted: float
) -> float:
    """The change of the energy over a step, eV, from the energies, or from the gradients along it (g·s before
    and after) where it is too small for the energies to tell."""
    if abs(predicted) > ENERGY_NOISE:
        return energies[1] - energies[0]
    return 0.5 * (gradients_along[0] + gradients_along[1])


def for_minimum(num_atoms: int) -> TrustRegion:
    """Starts at 0.3 Å for small molecules and may double twice; grows with the root of the number of
    atoms, so that the move of each atom counts."""
    scale = max(1.0, (num_atoms / 8.0) ** 0.5)
    return TrustRegion(radius=0.3 * scale, largest=1.0 * scale, two_sided=False)


def for_saddle(num_atoms: int) -> TrustRegion:
    """Half of that: the quadratic region around a saddle is smaller."""
    scale = max(1.0, (num_atoms / 8.0) ** 0.5)
    return TrustRegion(radius=0.15 * scale, largest=0.3 * scale, two_sided=True)
