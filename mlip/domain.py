r"""Where a model may be trusted: how unlike the atoms it was trained on an atom is.

The last scalar features of an atom, h, are compared with those of the training atoms of its element, of
mean μ and covariance Σ, by their Mahalanobis distance; the *novelty* is that distance over its 99.9 %
quantile on atoms held out of training:

$$\nu = \sqrt{(h - \mu)^T \Sigma^{-1} (h - \mu)}\,/\,q_{0.999}.$$

So one held-out atom in a thousand has a novelty above 1. It costs one small product per atom. It sees what
the model sees: two environments that the model cannot tell apart have the same novelty. So a radical may
look like what it would be with one hydrogen more; but electrons can be counted: where no training molecule
had an odd number of them, the atoms of one that has get a novelty of ten at least. So do atoms that meet
periodic images, where all of the training were molecules.

Source: Lee, Lee, Lee, Shin, NeurIPS 2018, arXiv:1807.03888 (the distance, in a network's features).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

QUANTILE: Final = 0.999
"""Share of the held-out atoms that count as known."""

OF_NO_KIND: Final = 10.0
"""Novelty, at least, where a molecule has an odd number of electrons and no training molecule had, or where
atoms meet periodic images and all of the training were molecules."""

SHRINKAGE: Final = 1e-3
"""Share of the mean variance added to every direction, so that directions without spread do not decide."""


class Domain(nn.Module):
    """The features of the training atoms of each species: their mean, spread and boundary; and whether there
    were molecules with an odd number of electrons, and periodic structures.

    Args:
        num_species: Species of the model.
        num_features: Features of an atom.
    """

    mean: Tensor
    whitening: Tensor
    boundary: Tensor
    odd_electrons: Tensor
    periodic: Tensor

    def __init__(self, num_species: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_species, num_features))
        self.register_buffer("whitening", torch.zeros(num_species, num_features, num_features))
        self.register_buffer("boundary", torch.zeros(num_species))
        self.register_buffer("odd_electrons", torch.tensor(True))
        self.register_buffer("periodic", torch.tensor(True))

    def distance(
        self, features: Float[Tensor, "atoms features"], species: Int[Tensor, " atoms"]
    ) -> Float[Tensor, " atoms"]:
        """Mahalanobis distance to the training atoms of the same species (an index, not Z)."""
        order = torch.argsort(species, stable=True)
        counts = torch.bincount(species, minlength=self.mean.shape[0]).tolist()
        centred = (features - self.mean.index_select(0, species)).index_select(0, order)
        parts = [
            torch.mm(part, self.whitening[index])
            for index, part in enumerate(centred.split(counts))
            if counts[index]
        ]
        whitened = torch.cat([centred.new_zeros(0, centred.shape[1]), *parts])
        return torch.empty_like(whitened[:, 0]).index_copy_(
            0, order, torch.linalg.vector_norm(whitened, dim=1)
        )

    def forward(
        self,
        features: Float[Tensor, "atoms features"],
        species: Int[Tensor, " atoms"],
        *,
        odd: Bool[Tensor, " atoms"],
        periodic: Bool[Tensor, " atoms"],
    ) -> Float[Tensor, " atoms"]:
        """Novelty of each atom: 1 at the boundary of what was seen in training, infinite for a species that
        was never seen; `odd` are atoms of molecules with an odd number of electrons, `periodic` those of
        structures that meet their images."""
        boundary = self.boundary.index_select(0, species)
        distance = self.distance(features, species)
        novelty = torch.where(boundary > 0, distance / boundary, torch.full_like(distance, math.inf))
        of_no_kind = (odd & ~self.odd_electrons) | (periodic & ~self.periodic)
        return torch.where(of_no_kind, novelty.clamp(min=OF_NO_KIND), novelty)


class DomainFit:
    """Collects features of training atoms, then of held-out ones, and makes a `Domain` of them."""

    def __init__(self, num_species: int, num_features: int) -> None:
        """Begin with nothing; sums are kept in float64."""
        self.count = torch.zeros(num_species, dtype=torch.float64)
        self.sum = torch.zeros(num_species, num_features, dtype=torch.float64)
        self.square = torch.zeros(num_species, num_features, num_features, dtype=torch.float64)

    def add(self, features: Float[Tensor, "atoms features"], species: Int[Tensor, " atoms"]) -> None:
        """Take note of training atoms."""
        features = features.detach().cpu().double()
        for index in species.unique().tolist():
            mine = features[species.cpu() == index]
            self.count[index] += mine.shape[0]
            self.sum[index] += mine.sum(0)
            self.square[index] += mine.T @ mine

    def domain(self) -> Domain:
        """Mean and spread of what was added; every boundary is 0 until `calibrate` sets it."""
        num_species, num_features = self.sum.shape
        domain = Domain(num_species, num_features).double()
        for index in range(num_species):
            count = float(self.count[index])
            if count == 0:
                continue
            mean = self.sum[index] / count
            covariance = self.square[index] / count - mean[:, None] * mean[None, :]
            # A mean over few atoms is uncertain: with fewer atoms than features the spread is mostly assumed.
            share = min(1.0, SHRINKAGE + num_features / (count + num_features) ** 1.5)
            typical = covariance.diagonal().mean().clamp(min=1e-12)
            covariance = (1 - share) * covariance + share * typical * torch.eye(
                num_features, dtype=torch.float64
            )
            values, vectors = torch.linalg.eigh(covariance)
            domain.mean[index] = mean
            domain.whitening[index] = vectors / values.clamp(min=1e-12).sqrt()
        return domain


def calibrate(domain: Domain, distances: Float[Tensor, " atoms"], species: Int[Tensor, " atoms"]) -> None:
    """Put the boundary of each species at the 99.9 % quantile of distances of atoms held out of training.

    A species with fewer than a hundred of them gets the largest distance, with a margin of a tenth.
    """
    for index in range(domain.boundary.shape[0]):
        mine = distances[species == index].double()
        if mine.numel() >= 100:
            domain.boundary[index] = torch.quantile(mine[:: 1 + mine.numel() // 1_000_000], QUANTILE)
        elif mine.numel():
            domain.boundary[index] = 1.1 * mine.max()
