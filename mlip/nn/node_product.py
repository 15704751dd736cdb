"""Many-body products on nodes: powers of a function on the sphere, taken point by point."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.nn.linear import EquivariantLinear
from mlip.o3.constants import ConstantModule
from mlip.o3.decompositions import lebedev
from mlip.o3.harmonics import spherical_harmonics


class SphereProduct(ConstantModule):
    r"""$B = \int Y\,(w_1 f_1 + w_2 f_1 f_2 + w_3 f_1 f_2 f_3)\,d\Omega/4\pi$ with $f_j = \sum_{lm} (L_j A)_{lm} Y_{lm}$.

    Each $f_j$ is its own per-degree channel mix of A, so the products reach more couplings than powers
    of one function would; the weights w depend on the species of the node and on the channel. A
    Lebedev rule of degree `correlation * lmax + lmax_out` makes the integral exact.

    Args:
        lmax: Largest degree of A.
        lmax_out: Largest degree of the result.
        num_channels: Channels of A and of the result.
        num_species: Number of species.
        correlation: Highest power, 1 to 4 (body order less one).
    """

    def __init__(
        self, lmax: int, lmax_out: int, num_channels: int, num_species: int, *, correlation: int
    ) -> None:
        super().__init__()
        if not 1 <= correlation <= 4:
            raise ValueError(f"`correlation` is {correlation} but must be 1, 2, 3 or 4")
        self.correlation, self.num_channels = correlation, num_channels
        points, weights = lebedev(correlation * lmax + lmax_out)
        values = spherical_harmonics(points, max(lmax, lmax_out))
        dim, dim_out = (lmax + 1) ** 2, (lmax_out + 1) ** 2
        # A unit-variance A makes functions of unit variance.
        self.register_constant("to_points", values[:, :dim] / math.sqrt(dim))
        self.register_constant("from_points", (values[:, :dim_out] * weights[:, None]).T.contiguous())
        self.mix = EquivariantLinear(lmax, num_channels, correlation * num_channels)
        self.weight = nn.Parameter(torch.randn(num_species, correlation, num_channels))

    def forward(
        self, a: Float[Tensor, "nodes harmonics channels"], species: Int[Tensor, " nodes"]
    ) -> Float[Tensor, "nodes harmonics_out channels"]:
        """A of each node and the index of its species to B."""
        f = torch.matmul(self.to_points, self.mix(a)).unflatten(-1, (self.correlation, self.num_channels)).unbind(-2)
        w = self.weight.index_select(0, species).unsqueeze(2).unbind(1)
        product = f[-1] * w[-1]
        for j in range(self.correlation - 2, -1, -1):
            product = f[j] * (product + w[j])
        return torch.matmul(self.from_points, product)
