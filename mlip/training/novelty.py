"""Fits the indicator of unfamiliar environments that travels with a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mlip.domain import DomainFit, calibrate
from mlip.potential import Potential
from mlip.training.packed import PackedFrames

MOST_FRAMES: Final = 20_000
"""Training frames that are looked at, evenly chosen."""


def fit_domain(potential: Potential, train: PackedFrames, valid: PackedFrames, *, batch_size: int) -> None:
    """Give `potential` a `Domain`: from its features of the training atoms, calibrated on held-out atoms.

    Elements without held-out atoms are calibrated on the training atoms.
    """
    fit: DomainFit | None = None
    num_species = len(potential.species)
    for features, species in _features(potential, train, batch_size):
        fit = fit or DomainFit(num_species, features.shape[1])
        fit.add(features, species)
    if fit is None:
        return
    domain = fit.domain()
    domain.odd_electrons.fill_(_odd_electrons(train))
    domain.periodic.fill_(not len(train) or bool(train.pbc.any()))
    for data in (train, valid):
        distances, kinds = [], []
        for features, species in _features(potential, data, batch_size):
            distances.append(domain.distance(features.double(), species))
            kinds.append(species)
        if distances:
            calibrate(domain, torch.cat(distances), torch.cat(kinds))
    potential.domain = domain.to(device=potential.device, dtype=potential.dtype)


def _odd_electrons(data: PackedFrames) -> bool:
    """Whether there is a molecule with an odd number of electrons."""
    if not len(data):
        return True
    electrons = np.add.reduceat(data.atomic_numbers.cpu().numpy().astype(np.int64), data.atom_starts)
    molecule = ~data.pbc.cpu().numpy().astype(bool).any(1)
    return bool((electrons[molecule] % 2 == 1).any()) or not molecule.any()


@torch.no_grad()
def _features(potential: Potential, data: PackedFrames, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and species of the atoms, batch after batch, on the CPU."""
    stride = 1 + (len(data) - 1) // MOST_FRAMES if len(data) else 1
    frames = np.arange(0, len(data), stride)
    for start in range(0, len(frames), batch_size):
        graph = data.batch(frames[start : start + batch_size]).graph
        output = potential.model(graph.atomic_numbers, graph.senders, graph.receivers, graph.edge_vectors())
        if "node_features" not in output:
            return
        species = potential.model.species_index.index_select(0, graph.atomic_numbers)
        yield output["node_features"].cpu(), species.cpu()
