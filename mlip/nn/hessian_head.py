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
antisymmetric parts of the blocks of each atom, axial vectors, must add up to zero. `mlip.hessian_assembly`
takes from each pair what is in excess, as the currents of a network of conductors that carry it away: the
least change, weighted by `weight`, that makes it so.

Blocks end smoothly at the cutoff, arms at half of it: atoms further apart than the cutoff have no block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.kernels.hessian_pairs import PairEnds, pair_ends
from mlip.kernels.linear import linear
from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial import SILU_GAIN, bessel, polynomial_envelope
from mlip.o3.cartesian import tensor_matrix
from mlip.o3.constants import ConstantModule

NUM_BESSEL = 16
SCALE = 16.0
"""eV Å²: blocks of organic molecules fall off about as this divided by the distance to the fourth power."""
PAIRS_AT_ONCE = 1024
SHORT = 0.5
"""Å⁴; keeps that prior finite at short distances."""


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


@dataclass(frozen=True)
class HessianTerms:
    """A second derivative as blocks of pairs and internal coordinates of atoms (see the head of this file).

    Attributes:
        blocks: B of each ordered pair, receiver first, eV/Å².
        weight: How much a pair takes of what makes the blocks conserve angular momentum; positive.
        near: Indices of the pairs that have arms.
        arms: Of the internal coordinates of the receiver at the sender.
        metric: Of the internal coordinates of each atom, symmetric, eV/Å² in the product with two arms.
    """

    blocks: Float[Tensor, "pairs 3 3"]
    weight: Float[Tensor, " pairs"]
    near: Int[Tensor, " near"]
    arms: Float[Tensor, "near 3 coordinates"]
    metric: Float[Tensor, "atoms coordinates coordinates"]


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
        nodes = _Nodes(species, self.ends(features[:, :1])[:, 0], self.geometry(features).narrow(1, 1, 8))
        # Without a gradient to keep, numbers of a few pairs at a time stay in the cache.
        size = pairs.senders.shape[0] if torch.is_grad_enabled() else PAIRS_AT_ONCE
        parts = [self._of_pairs(nodes, *part) for part in _portions(pairs, max(1, size))]
        blocks, weight, close, arms = (torch.cat(column) for column in zip(*parts, strict=True))
        metric = (self.metric + self.metric.transpose(1, 2)) / (2 * self.coordinates)
        return HessianTerms(blocks, weight, close.nonzero()[:, 0], arms, metric.index_select(0, species))

    def _of_pairs(
        self, nodes: _Nodes, receivers: Tensor, senders: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Blocks, their weights, which pairs are close, and the arms of those."""
        distance = vectors.norm(dim=1)
        prior = SCALE / (SHORT + distance.pow(4))
        ends = pair_ends(nodes.geometry, receivers, senders, vectors / distance.unsqueeze(1), self.tensor)
        hidden = self._hidden(nodes, receivers, senders, distance, ends)
        weight = prior * polynomial_envelope(distance / self.cutoff)
        blocks = ends.blocks(self._coefficients(hidden)) * weight[:, None, None]
        close = distance < 0.5 * self.cutoff
        near = close.nonzero()[:, 0]
        reach = polynomial_envelope(2 * distance.index_select(0, near) / self.cutoff)
        size = prior.index_select(0, near).sqrt() * reach
        arms = self._arms(hidden.index_select(0, near), ends, near) * size[:, None, None]
        return blocks, weight, close, arms

    def _hidden(
        self, nodes: _Nodes, receivers: Tensor, senders: Tensor, distance: Tensor, ends: PairEnds
    ) -> Float[Tensor, "pairs width"]:
        """First layer of the networks: scalars of both ends, distance, projections on the direction."""
        width = self.radial.shape[1]
        of = nodes.species.index_select
        kind = of(0, receivers) * self.num_species + of(0, senders)
        radial = _dense(bessel(distance, self.cutoff, NUM_BESSEL), self.radial, self.radial_scale)
        hidden = (
            nodes.scalars[:, :width].index_select(0, receivers)
            + nodes.scalars[:, width:].index_select(0, senders)
            + radial * self.pair_gain.index_select(0, kind)
            + self.pair_bias.index_select(0, kind)
            + _dense(ends.projections, self.angular)
        )
        return nn.functional.silu(hidden / math.sqrt(5.0))

    def _coefficients(self, hidden: Tensor) -> Float[Tensor, "pairs coefficients"]:
        """Those of the blocks, in the order of `mlip.kernels.hessian_pairs`; sums are of order one."""
        k = self.channels
        scale = torch.cat(
            [
                hidden.new_full((count,), 1 / math.sqrt(terms))
                for count, terms in ((2, 1), (8 * k, 4 * k), (2 * k, 2 * k), (k, k))
            ]
        )
        return _after_silu(_activated(hidden, self.pair_hidden), self.pair_out * scale)

    def _arms(self, hidden: Tensor, ends: PairEnds, near: Tensor) -> Float[Tensor, "near 3 coordinates"]:
        k = 4 * self.channels
        coefficients = _after_silu(_activated(hidden, self.arm_hidden), self.arm_out)
        beside, along = coefficients.split([k, self.coordinates], dim=1)
        scaled = ends.basis.index_select(0, near) * beside.unsqueeze(1)
        mixed = _dense(scaled.flatten(0, 1), self.arm_mix).unflatten(0, scaled.shape[:2])
        return mixed + ends.direction.index_select(0, near).unsqueeze(2) * along.unsqueeze(1)


class _Nodes(NamedTuple):
    """What the pairs take from their ends."""

    species: Int[Tensor, " atoms"]
    scalars: Float[Tensor, "atoms width2"]
    """For the receiver, then for the sender."""
    geometry: Float[Tensor, "atoms 8 channels"]
    """Vectors and tensors."""


def _portions(pairs: Pairs, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Receivers, senders and vectors of so many pairs at a time; once if there are none."""
    for start in range(0, max(1, pairs.senders.shape[0]), size):
        part = slice(start, start + size)
        yield pairs.receivers[part], pairs.senders[part], pairs.vectors[part]


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


def _dense(x: Tensor, weight: Tensor, gain: float = 1.0) -> Tensor:
    return linear(x.unsqueeze(1), (weight * (gain / math.sqrt(weight.shape[0]))).unsqueeze(0)).squeeze(1)


def _after_silu(x: Tensor, weight: Tensor) -> Tensor:
    """A layer on what SiLU has left."""
    return _dense(x, weight, SILU_GAIN)


def _activated(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.silu(_after_silu(x, weight))
