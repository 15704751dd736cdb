from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.errors import InputError
from mlip.graph import AtomGraph, collate
from mlip.neighbors import build_graph

WATER = Atoms("OHH", [[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.0, -0.8, -0.5]])
CRYSTAL = Atoms(
    "SiSi", [[0.0, 0.0, 0.0], [1.3, 1.2, 1.4]], cell=[[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]], pbc=True
)
ATOM = Atoms("He", cell=[9, 9, 9], pbc=True)


def test_edge_vectors() -> None:
    """From receiver to sender, in the image that the shift names."""
    graph = AtomGraph(
        positions=torch.tensor([[0.5, 0.0, 0.0], [0.0, 2.0, 0.0]]),
        atomic_numbers=torch.tensor([1, 1]),
        cell=torch.tensor([[[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.0, 6.0]]]),
        pbc=torch.ones(1, 3, dtype=torch.bool),
        batch=torch.zeros(2, dtype=torch.int64),
        senders=torch.tensor([1, 0]),
        receivers=torch.tensor([0, 1]),
        shifts=torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 2.0]]),
    )
    assert graph.edge_vectors().tolist() == [[-1.5, -3.0, 0.0], [4.5, -2.0, 12.0]]
    assert (graph.num_structures, graph.num_atoms, graph.num_edges) == (1, 2, 2)


def test_collate() -> None:
    singles = [build_graph(atoms, 4.0) for atoms in (WATER, CRYSTAL, ATOM, CRYSTAL)]
    graph = collate(singles)
    assert (graph.num_structures, graph.num_atoms) == (4, 8)
    assert graph.num_edges == sum(g.num_edges for g in singles)
    assert graph.batch.tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    assert (graph.receivers.diff() >= 0).all()
    assert torch.equal(graph.batch[graph.senders], graph.batch[graph.receivers])
    assert torch.equal(graph.edge_vectors(), torch.cat([g.edge_vectors() for g in singles]))
    for name in ("positions", "atomic_numbers", "cell", "pbc", "shifts"):
        assert torch.equal(getattr(graph, name), torch.cat([getattr(g, name) for g in singles]))


def test_collate_batches() -> None:
    """Graphs that are batches already."""
    one, two = build_graph(WATER, 4.0), build_graph(CRYSTAL, 4.0)
    nested, flat = collate([collate([one, two]), two]), collate([one, two, two])
    for field in dataclasses.fields(AtomGraph):
        assert torch.equal(getattr(nested, field.name), getattr(flat, field.name)), field.name


def test_collate_one_and_none() -> None:
    graph = build_graph(WATER, 4.0)
    assert collate([graph]) is graph
    with pytest.raises(InputError, match="`graphs` is empty; at least one graph is needed to make a batch"):
        collate([])


def test_to() -> None:
    graph = build_graph(CRYSTAL, 4.0)
    single = graph.to(dtype=torch.float32)
    for field in dataclasses.fields(AtomGraph):
        before, after = getattr(graph, field.name), getattr(single, field.name)
        assert after.dtype == (torch.float32 if before.is_floating_point() else before.dtype), field.name
        np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-7)
    assert graph.positions.dtype == torch.float64
    moved = graph.to("meta")
    assert all(getattr(moved, field.name).is_meta for field in dataclasses.fields(AtomGraph))


def test_frozen() -> None:
    graph = build_graph(WATER, 4.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.positions = torch.zeros(3, 3)  # type: ignore[misc]
