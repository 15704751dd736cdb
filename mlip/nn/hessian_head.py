r"""Second derivatives read off node features, without differentiation.

A Hessian is made of a 3x3 block for each pair of atoms and of internal coordinates of each atom:

* Blocks $B_{ij}$: scalars times 1 and $\hat r \hat r^T$, products of $\hat r$ with vectors of both ends,
  products of these vectors, and the second-degree tensors of both ends; $H_{ij} = -(B_{ij} + B_{ji}^T)$ for
  $i \ne j$.
* Internal coordinates $q_i^c = \sum_j g_{ij}^c \cdot (\delta x_j - \delta x_i)$, learned counterparts of
  stretches and bends, linear in the displacements of near neighbours, with *arms* g made of the same
  vectors; they add $\sum_i \sum_{cc'} M^{z_i}_{cc'} q_i^c q_i^{c'}$ to the second variation of the energy.
  So blocks come to depend on the atom between two others.

Coefficients come from a network on scalars of both ends, on the distance, and on projections of both ends'
features on $\hat r$. Everything is built from features of natural parity, so that H transforms under all of
O(3).

A Hessian must be symmetric, and moving all atoms together must cost nothing. Internal coordinates obey both
by construction. For blocks $H_{ii} = -\sum_j H_{ij}$ is not enough: the sum must be symmetric too, so the
antisymmetric parts of the blocks of each atom, axial vectors, must add up to zero.
`mlip.kernels.hessian_matrix` takes from each pair what is in excess, as the currents of a network of
conductors that carry it away: the least change, weighted by `weight`, that makes it so.

Blocks end smoothly at the cutoff, arms at half of it: atoms further apart than the cutoff have no block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.kernels.distance import bessel
from mlip.kernels.hessian_pairs import PairEnds, PairNetwork, PairTerms, pair_terms
from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial import SILU_GAIN
from mlip.o3.cartesian import tensor_matrix
from mlip.o3.constants import ConstantModule

NUM_BESSEL = 16
HIDDEN = math.sqrt(5.0)
"""Five terms of order one are added up in the hidden layer."""


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of atoms, sorted by receiver; both orders of each pair are there.

    Attributes:
        senders: Index of one atom.
        receivers: Index of the other.
        vectors: From receiver to sender, Å.
        shifts: Lattice shift of the sender.
    """

    senders: Int[Tensor, " pairs"]
    receivers: Int[Tensor, " pairs"]
    vectors: Float[Tensor, "pairs 3"]
    shifts: Int[Tensor, "pairs 3"]


class HessianTerms(NamedTuple):
    """A second derivative, as blocks of pairs and internal coordinates of atoms."""

    pairs: PairTerms
    metric: Float[Tensor, "atoms coordinates coordinates"]
    """Of the internal coordinates of each atom, symmetric, eV/Å² in the product with two arms."""


class HessianHead(ConstantModule):
    """Node features of degrees 0, 1 and 2 to the terms of a Hessian.

    Args:
        cutoff: Å; of the stiffness. That of the arms is half of it.
        channels_in: Channels of the node features.
        num_species: Number of species.
        channels: Vectors and tensors of each atom that blocks are made of.
        coordinates: Internal coordinates of each atom.
        width: Width of the networks.
    """

    HIDDEN_MATRICES = ("angular", "pair_hidden", "pair_out", "arm_hidden", "arm_out", "arm_mix")
    """Read by `mlip.training.optimizer`."""

    tensor: Tensor

    def __init__(
        self,
        cutoff: float,
        channels_in: int,
        num_species: int,
        *,
        channels: int,
        coordinates: int,
        width: int,
    ) -> None:
        super().__init__()
        self.cutoff, self.num_species, self.channels, self.coordinates = (
            cutoff,
            num_species,
            channels,
            coordinates,
        )
        self.register_constant("tensor", tensor_matrix() / math.sqrt(2.0))
        radii = torch.linspace(0.1 * cutoff, cutoff, 256, dtype=torch.float64)
        self.radial_scale = 1 / float(bessel(radii, cutoff, NUM_BESSEL).pow(2).mean().sqrt())
        self.ends = EquivariantLinear(0, channels_in, 2 * width)
        self.geometry = EquivariantLinear(2, channels_in, channels)
        pairs = num_species**2
        self.pair_bias = nn.Parameter(torch.randn(pairs, width))
        self.pair_gain = nn.Parameter(torch.ones(pairs, width))
        self.radial = nn.Parameter(torch.randn(NUM_BESSEL, width))
        self.angular = nn.Parameter(torch.randn(5 * channels, width))
        self.pair_hidden = nn.Parameter(torch.randn(width, width))
        self.pair_out = nn.Parameter(0.1 * torch.randn(width, 2 + 11 * channels))
        self.arm_hidden = nn.Parameter(torch.randn(width, width))
        self.arm_out = nn.Parameter(0.3 * torch.randn(width, 4 * channels + coordinates))
        self.arm_mix = nn.Parameter(torch.randn(4 * channels, coordinates))
        self.metric = nn.Parameter(torch.randn(num_species, coordinates, coordinates))

    def forward(
        self,
        features: Float[Tensor, "atoms 9 channels_in"],
        species: Int[Tensor, " atoms"],
        pairs: Pairs,
    ) -> HessianTerms:
        """Terms of the Hessian of atoms with these features."""
        features = normalised(features)
        kinds = species.index_select(0, pairs.receivers) * self.num_species
        ends = PairEnds(
            self.ends(features[:, :1])[:, 0] / HIDDEN,
            self.geometry(features).narrow(1, 1, 8),
            pairs.receivers,
            pairs.senders,
            kinds + species.index_select(0, pairs.senders),
            pairs.vectors,
        )
        metric = (self.metric + self.metric.transpose(1, 2)) / (2 * self.coordinates)
        return HessianTerms(pair_terms(ends, self._network(), self.cutoff), metric.index_select(0, species))

    def _network(self) -> PairNetwork:
        """The weights with all factors, so that sums are of order one."""
        k = self.channels
        terms = [1] * 2 + [4 * k] * 8 * k + [2 * k] * 2 * k + [k] * k
        each = self.pair_out.new_tensor(terms).rsqrt()
        return PairNetwork(
            radial=_scaled(self.radial, self.radial_scale / HIDDEN),
            gain=self.pair_gain,
            bias=self.pair_bias / HIDDEN,
            angular=_scaled(self.angular, 1 / HIDDEN),
            pair_hidden=_scaled(self.pair_hidden, SILU_GAIN),
            pair_out=_scaled(self.pair_out, SILU_GAIN) * each,
            arm_hidden=_scaled(self.arm_hidden, SILU_GAIN),
            arm_out=_scaled(self.arm_out, SILU_GAIN),
            arm_mix=_scaled(self.arm_mix, 1.0),
            tensor=self.tensor,
        )


def _scaled(weight: Tensor, gain: float) -> Tensor:
    """Weights of a layer that keeps the variance, times a factor."""
    return weight * (gain / math.sqrt(weight.shape[0]))


def normalised(
    features: Float[Tensor, "nodes harmonics channels"], *, floor: float = 0.01
) -> Float[Tensor, "nodes harmonics channels"]:
    r"""Each degree divided by $\sqrt{floor^2 + \langle x^2 \rangle}$, its root mean square over components
    and channels: smooth also where a degree vanishes by symmetry."""
    lmax = math.isqrt(features.shape[1]) - 1
    parts = features.split([2 * degree + 1 for degree in range(lmax + 1)], dim=1)
    return torch.cat(
        [part * (floor**2 + part.square().mean(dim=(1, 2), keepdim=True)).rsqrt() for part in parts], dim=1
    )
