r"""Second derivatives read off node features, without differentiation.

A Hessian must be symmetric, and moving all atoms together must cost nothing. A sum of free 3x3 blocks
$H_{ij} = B_{ij} + B_{ji}^T$ with $H_{ii} = -\sum_j H_{ij}$ is not: $\sum_j H_{ij}$ has an antisymmetric part. Here
both hold by construction, because everything is a product of changes that depend on differences of positions.
With $d_{ij} = x_i - x_j$,

$$\delta^2 E = \sum_{(ij)} \delta d_{ij}^T\, S_{ij}\, \delta d_{ij}
  + \sum_i \sum_{cc'} M^{z_i}_{cc'}\, q_i^c\, q_i^{c'}, \qquad q_i^c = \sum_j g_{ij}^c \cdot \delta d_{ji}.$$

The *stiffness* $S_{ij}$ of a pair is a symmetric matrix: scalars times 1 and $\hat r \hat r^T$, symmetric products of
$\hat r$ and of vectors of both ends, and the second-degree tensors of both ends. The second sum gives each atom i
*internal coordinates* $q_i^c$, learned counterparts of stretches and bends: linear in the displacements of its near
neighbours relative to it, with *arms* $g_{ij}^c$ made of the same vectors. Their products reach two neighbours of an
atom and so give what pairs cannot: antisymmetric parts of blocks, and blocks that depend on the atom between two
others. Coefficients come from a network on scalars of both ends, on the distance, and on projections of both ends'
features on $\hat r$. Everything is built from features of natural parity, so that H transforms under all of O(3).

The stiffness ends smoothly at the cutoff, arms at half of it: blocks of atoms further apart than the cutoff are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial import SILU_GAIN, bessel, polynomial_envelope
from mlip.o3.cartesian import tensor_matrix
from mlip.o3.constants import ConstantModule

NUM_BESSEL = 16
STIFFNESS_SCALE = 16.0
"""eV Å²: blocks of organic molecules fall off about as this divided by the distance to the fourth power."""
SHORT = 0.5
"""Å⁴; keeps that prior finite at short distances."""


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of atoms, sorted by receiver; both orders of each pair are there.

    Attributes:
        senders: Index of one atom.
        receivers: Index of the other.
        vectors: From receiver to sender, Å.
    """

    senders: Int[Tensor, " pairs"]
    receivers: Int[Tensor, " pairs"]
    vectors: Float[Tensor, "pairs 3"]


@dataclass(frozen=True)
class HessianTerms:
    """A second derivative as stiffnesses of pairs and internal coordinates of atoms (see the head of this file).

    Attributes:
        stiffness: Of each ordered pair, symmetric, eV/Å²; both orders count.
        near: Indices of the pairs that have arms.
        arms: Of the internal coordinates of the receiver at the sender.
        dual_arms: `arms` times the metric of the receiver, eV/Å² in the product.
    """

    stiffness: Float[Tensor, "pairs 3 3"]
    near: Int[Tensor, " near"]
    arms: Float[Tensor, "near 3 coordinates"]
    dual_arms: Float[Tensor, "near 3 coordinates"]


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
        self.pair_out = nn.Parameter(0.1 * torch.randn(width, 2 + 7 * channels))
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
        distance = pairs.vectors.norm(dim=1)
        direction = pairs.vectors / distance.unsqueeze(1)
        prior = (SHORT + distance.pow(4)).reciprocal()
        geometry = self.geometry(features)
        tensors = torch.einsum("xym,nmk->nxyk", self.tensor, geometry[:, 4:9])
        ends = _Ends(pairs, direction, geometry[:, 1:4], tensors)
        hidden = self._hidden(features, species, pairs, distance, ends)
        weight = STIFFNESS_SCALE * prior * polynomial_envelope(distance / self.cutoff)
        stiffness = self._stiffness(hidden, ends) * weight[:, None, None]
        near = (distance < 0.5 * self.cutoff).nonzero()[:, 0]
        reach = distance[near]
        weight = (STIFFNESS_SCALE * prior[near]).sqrt() * polynomial_envelope(2 * reach / self.cutoff)
        arms = self._arms(hidden[near], ends, near) * weight[:, None, None]
        metric = (self.metric + self.metric.transpose(1, 2)) / (2 * self.coordinates)
        centre = species.index_select(0, pairs.receivers[near])
        return HessianTerms(stiffness, near, arms, torch.bmm(arms, metric.index_select(0, centre)))

    def _hidden(
        self, features: Tensor, species: Tensor, pairs: Pairs, distance: Tensor, ends: _Ends
    ) -> Float[Tensor, "pairs width"]:
        """First layer of the networks: scalars of both ends, distance, projections on the direction."""
        width = self.radial.shape[1]
        kind = species.index_select(0, pairs.receivers) * self.num_species + species.index_select(
            0, pairs.senders
        )
        of_ends = self.ends(features[:, :1])[:, 0]
        radial = bessel(distance, self.cutoff, NUM_BESSEL) @ self.radial
        hidden = (
            of_ends[:, :width].index_select(0, pairs.receivers)
            + of_ends[:, width:].index_select(0, pairs.senders)
            + radial * self.pair_gain.index_select(0, kind) * (self.radial_scale / math.sqrt(NUM_BESSEL))
            + self.pair_bias.index_select(0, kind)
            + ends.projections() @ self.angular / math.sqrt(self.angular.shape[0])
        )
        return _activate(hidden / math.sqrt(5.0))

    def _stiffness(self, hidden: Tensor, ends: _Ends) -> Float[Tensor, "pairs 3 3"]:
        k = self.channels
        coefficients = _dense(_activate(_dense(hidden, self.pair_hidden)), self.pair_out)
        one, along, beside, tensors, products = coefficients.split([1, 1, 4 * k, 2 * k, k], dim=1)
        u = ends.direction
        # (along / 2) u + beside: its symmetric product with u has both terms
        lean = torch.einsum("pxk,pk->px", ends.basis, beside) / math.sqrt(4 * k) + 0.5 * along * u
        half = lean.unsqueeze(2) * u.unsqueeze(1)
        half = (
            half + torch.einsum("pxk,pyk->pxy", ends.receiver * products.unsqueeze(1), ends.sender) / k**0.5
        )
        whole = half + half.transpose(1, 2) + ends.tensors(tensors) / math.sqrt(2 * k)
        return whole + one.unsqueeze(2) * torch.eye(3, dtype=u.dtype, device=u.device)

    def _arms(self, hidden: Tensor, ends: _Ends, near: Tensor) -> Float[Tensor, "near 3 coordinates"]:
        k = 4 * self.channels
        coefficients = _dense(_activate(_dense(hidden, self.arm_hidden)), self.arm_out)
        beside, along = coefficients.split([k, self.coordinates], dim=1)
        mixed = (ends.basis.index_select(0, near) * beside.unsqueeze(1)) @ self.arm_mix / math.sqrt(k)
        return mixed + ends.direction.index_select(0, near).unsqueeze(2) * along.unsqueeze(1)


class _Ends:
    """What blocks of a pair are made of: vectors of both ends, and tensors of both ends on the direction."""

    def __init__(
        self,
        pairs: Pairs,
        direction: Float[Tensor, "pairs 3"],
        vectors: Float[Tensor, "atoms 3 channels"],
        tensors: Float[Tensor, "atoms 3 3 channels"],
    ) -> None:
        self.direction = direction
        self.receiver = vectors.index_select(0, pairs.receivers)
        self.sender = vectors.index_select(0, pairs.senders)
        self._tensors = [tensors.index_select(0, i) for i in (pairs.receivers, pairs.senders)]
        turned = [torch.einsum("pxyk,py->pxk", t, direction) for t in self._tensors]
        self.basis = torch.cat([self.receiver, self.sender, *turned], dim=2)

    def projections(self) -> Float[Tensor, "pairs projections"]:
        """Invariants that know the direction: how both ends' features lie along it and to each other."""
        along = torch.einsum("pxk,px->pk", self.basis, self.direction)
        return torch.cat([along, (self.receiver * self.sender).sum(1) / math.sqrt(3.0)], dim=1)

    def tensors(self, weights: Float[Tensor, "pairs channels2"]) -> Float[Tensor, "pairs 3 3"]:
        """Weighted sum of the tensors of both ends."""
        halves = weights.chunk(2, dim=1)
        parts = [torch.einsum("pxyk,pk->pxy", t, w) for t, w in zip(self._tensors, halves, strict=True)]
        return parts[0] + parts[1]


def normalised(
    features: Float[Tensor, "nodes harmonics channels"], *, floor: float = 0.01
) -> Float[Tensor, "nodes harmonics channels"]:
    r"""Each degree divided by $\sqrt{floor^2 + \langle x^2 \rangle}$, its root mean square over components and
    channels: smooth also where a degree vanishes by symmetry."""
    lmax = math.isqrt(features.shape[1]) - 1
    parts = features.split([2 * degree + 1 for degree in range(lmax + 1)], dim=1)
    return torch.cat(
        [part * (floor**2 + part.square().mean(dim=(1, 2), keepdim=True)).rsqrt() for part in parts], dim=1
    )


def _activate(x: Tensor) -> Tensor:
    return nn.functional.silu(x) * SILU_GAIN


def _dense(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight / math.sqrt(weight.shape[0])
