"""Radial functions: networks or free coefficients at the knots of a quintic B-spline.

Whatever makes the coefficients, an edge costs six multiply-adds per function: the network runs on
some twenty knots for each pair of species, never on the edges.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.kernels.distance import bessel, polynomial_envelope
from mlip.kernels.edge_basis import edge_basis
from mlip.nn.frozen import FrozenCache
from mlip.o3.constants import ConstantModule

ORDER = 6
"""Basis functions that are not zero on one interval (quintic: degree 5)."""

SILU_GAIN = 1.6765
"""1 / (root mean square of SiLU of a standard normal number): keeps variance through a layer."""

PAIR_SHARE = 0.05
"""How much of the first layer's input tells pairs of species apart: little, since radial functions of their
own for every pair fit small data sets too well (channels carry the species of the sender all the same)."""

RadialKind = Literal["network", "spline"]


def uniform_bspline_matrix() -> Float[Tensor, "6 6"]:
    """Coefficients of the six quintic B-splines on one interval, `[power, function]`, powers of f in [0, 1).

    Source: de Boor's recurrence on integer knots, `B_d(x) = (x B_{d-1}(x) + (d+1-x) B_{d-1}(x-1)) / d`.
    """
    # pieces[d][j] holds the polynomial in f of the degree-d spline on its interval j.
    pieces = [torch.ones(1, dtype=torch.float64)]
    for degree in range(1, ORDER):
        grown = []
        for j in range(degree + 1):
            total = torch.zeros(degree + 1, dtype=torch.float64)
            if j < degree:  # (f + j) * B_{d-1} piece j
                total[1:] += pieces[j]
                total[:-1] += j * pieces[j]
            if j > 0:  # (d + 1 - j - f) * B_{d-1} piece j - 1
                total[:-1] += (degree + 1 - j) * pieces[j - 1]
                total[1:] -= pieces[j - 1]
            grown.append(total / degree)
        pieces = grown
    # On interval i the function i + k is on its piece 5 - k.
    return torch.stack([pieces[ORDER - 1 - k] for k in range(ORDER)], dim=1)


class SplineBasis(ConstantModule):
    """Quintic B-splines on equal intervals of (0, cutoff); smooth to the fourth derivative.

    The functions that do not vanish at the cutoff are left out (their coefficients are zero rows of
    the table), so everything built on the basis goes to zero there with four continuous derivatives.
    """

    polynomials: Tensor

    def __init__(self, cutoff: float, num_intervals: int) -> None:
        super().__init__()
        if num_intervals < 1:
            raise ValueError(f"`num_intervals` is {num_intervals} but must be at least 1")
        self.cutoff, self.num_intervals = cutoff, num_intervals
        self.register_constant("polynomials", uniform_bspline_matrix())

    @property
    def rows(self) -> int:
        """Rows of the coefficient table of one pair of species, zero rows included."""
        return self.num_intervals + ORDER - 1

    def knots(self) -> Float[Tensor, " num_intervals"]:
        """Centre of each function that is kept, Å; the first ones lie at or below zero."""
        return (
            (torch.arange(self.num_intervals, dtype=torch.float64) - 2.0) * self.cutoff / self.num_intervals
        )

    def forward(
        self, vectors: Float[Tensor, "edges 3"], lmax: int
    ) -> tuple[Float[Tensor, "edges harmonics"], Float[Tensor, "edges 6"], Int[Tensor, " edges"]]:
        """Harmonics, the six splines that are not zero at each length, and the index of the first of them."""
        return edge_basis(vectors, self.polynomials, self.cutoff, self.num_intervals, lmax)


class RadialTable(ConstantModule):
    """Coefficients of the radial functions of one layer, for every pair of species.

    Args:
        basis: Spline on which the functions live.
        num_species: Number of species; a pair is `receiver * num_species + sender`.
        num_functions: Functions per channel (degrees of the harmonics, or coupling paths).
        num_channels: Channels.
        kind: "network" (a perceptron on Bessel functions of the knots and on the pair) or "spline"
            (free coefficients).
    """

    HIDDEN_MATRICES = ("second", "third")
    """Read by `mlip.training.optimizer`."""

    envelope: Tensor
    features: Tensor

    def __init__(
        self,
        basis: SplineBasis,
        num_species: int,
        num_functions: int,
        num_channels: int,
        *,
        kind: RadialKind = "network",
        width: int = 64,
        num_bessel: int = 8,
    ) -> None:
        super().__init__()
        if kind not in ("network", "spline"):
            raise ValueError(f"`radial` is {kind!r} but must be 'network' or 'spline'")
        self.kind, self.num_species = kind, num_species
        self.num_functions, self.num_channels = num_functions, num_channels
        self.zero_rows = ORDER - 1
        self._table = FrozenCache()
        knots = basis.knots().clamp(min=0.0)
        self.register_constant("envelope", polynomial_envelope(knots / basis.cutoff))
        pairs, outputs = num_species**2, num_functions * num_channels
        if kind == "spline":
            # Smooth start: random combinations of Bessel functions, as a fresh network would give.
            features = bessel(knots, basis.cutoff, num_bessel).to(torch.get_default_dtype())
            mix = torch.randn(pairs, num_bessel, outputs) / math.sqrt(num_bessel)
            self.coefficients = nn.Parameter(torch.einsum("kb,pbo->pko", features, mix))
            return
        features = bessel(knots, basis.cutoff, num_bessel)
        self.register_constant("features", features / features.pow(2).mean().sqrt())
        # Weights of order one, divided by the root of their number where they are used: an optimiser's
        # step then changes every layer by the same small fraction.
        self.first = nn.Parameter(torch.randn(num_bessel, width))
        self.pair_bias = nn.Parameter(torch.randn(pairs, width))
        self.second = nn.Parameter(torch.randn(width, width))
        self.third = nn.Parameter(torch.randn(width, outputs))

    def forward(self) -> Float[Tensor, "rows num_functions num_channels"]:
        """The table; rows of one pair are contiguous, its zero rows last."""
        return self._table.get(list(self.parameters()), self.table)

    def table(self) -> Float[Tensor, "rows num_functions num_channels"]:
        """The table, computed anew."""
        values: Tensor
        if self.kind == "spline":
            values = self.coefficients
        else:
            silu = nn.functional.silu
            in_root, root = math.sqrt(self.first.shape[0]), math.sqrt(self.second.shape[0])
            first = self.features @ self.first / in_root
            hidden = silu(first[None] + PAIR_SHARE * self.pair_bias[:, None]) * SILU_GAIN
            hidden = silu(hidden @ self.second / root) * SILU_GAIN
            values = hidden @ self.third / root
        values = nn.functional.pad(values * self.envelope[:, None], (0, 0, 0, self.zero_rows))
        return values.reshape(-1, self.num_functions, self.num_channels)
