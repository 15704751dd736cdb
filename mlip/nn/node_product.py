"""Many-body products on nodes: powers of a function on the sphere, taken point by point."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.kernels.sphere_product import sphere_product
from mlip.nn.linear import EquivariantLinear
from mlip.o3.constants import ConstantModule
from mlip.o3.gaunt import lebedev
from mlip.o3.harmonics import spherical_harmonics


class SphereProduct(ConstantModule):
    r"""$B = \int Y\,(w_1 f_1 + w_2 f_1 f_2 + w_3 f_1 f_2 f_3)\,d\Omega/4\pi$: powers on the sphere.

    $f_j = \sum_{lm} s_{jl} (LA)_{lm} Y_{lm}$.

    L mixes channels. The scales s and the weights w depend on the species of the node and on the channel:
    the weight of a coupling path (l1, l2, l3) is the product of the scales of its degrees. A
    Lebedev rule of degree `correlation * lmax + lmax_out` makes the integral exact.

    Args:
        lmax: Largest degree of A.
        lmax_out: Largest degree of the result.
        num_channels: Channels of A and of the result.
        num_species: Number of species.
        correlation: Highest power, 1 to 4 (body order less one).
    """

    to_points: Tensor
    from_points: Tensor

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
        self.mix = EquivariantLinear(lmax, num_channels, num_channels)
        self.scale = nn.Parameter(1 + 0.5 * torch.randn(num_species, correlation, lmax + 1, num_channels))
        self.weight = nn.Parameter(torch.randn(num_species, correlation, num_channels))

    def forward(
        self, a: Float[Tensor, "nodes harmonics channels"], species: Int[Tensor, " nodes"]
    ) -> Float[Tensor, "nodes harmonics_out channels"]:
        """A of each node and the index of its species to B."""
        return sphere_product(self.mix(a), self.scale, self.weight, self.to_points, self.from_points, species)
