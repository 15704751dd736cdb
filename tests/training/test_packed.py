"""Packed frames against one graph after another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mlip.datasets import Frame
from mlip.errors import InputError
from mlip.graph import collate
from mlip.neighbors import build_graph
from mlip.training.packed import pack


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_batches_are_collated_graphs(frames: list[Frame], crystals: list[Frame], kind: str) -> None:
    chosen = frames if kind == "molecules" else crystals
    packed = pack(chosen, 3.0, dtype=torch.float64)
    which = np.array([3, 0, 5])
    batch = packed.batch(which)
    expected = collate([build_graph(chosen[i].to_atoms(), 3.0) for i in which])
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(batch.graph, field.name), getattr(expected, field.name)
        assert ours.dtype == theirs.dtype, field.name
        assert torch.equal(ours, theirs), field.name
    assert batch.energy.tolist() == [chosen[i].energy for i in which]
    forces = np.concatenate([chosen[i].forces for i in which])
    assert np.array_equal(batch.forces.numpy(), forces)
    assert batch.graph.atoms_per_structure.tolist() == [len(chosen[i]) for i in which]
    assert (batch.num_structures_in_step, batch.num_atoms_in_step) == (3, len(forces))
    if kind == "crystals":
        assert np.array_equal(batch.stress[1].numpy(), chosen[0].stress)
    else:
        assert batch.stress.isnan().all()


def test_single_precision_keeps_energies(frames: list[Frame]) -> None:
    batch = pack(frames, 3.0, dtype=torch.float32).batch(np.array([1]))
    assert batch.graph.positions.dtype == batch.forces.dtype == torch.float32
    assert batch.energy.dtype == torch.float64


def test_frames_that_do_not_count(frames: list[Frame]) -> None:
    packed = pack(frames, 3.0, dtype=torch.float64)
    batch = packed.batch(np.array([1]), counted=False, whole=np.array([1, 2]))
    assert batch.weight.tolist() == [0.0]
    assert batch.num_structures_in_step == 2
    assert batch.num_atoms_in_step == len(frames[1]) + len(frames[2])


def test_an_atom_without_neighbours() -> None:
    lonely = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), energy=-13.5)
    batch = pack([lonely], 3.0, dtype=torch.float64).batch(np.array([0]))
    assert batch.graph.num_edges == 0
    assert batch.forces.isnan().all()


def test_refusals(frames: list[Frame]) -> None:
    with pytest.raises(InputError, match="training frames: there are no frames"):
        pack([], 3.0, dtype=torch.float64, source="training frames")
    bad = Frame(positions=np.zeros((2, 3)), atomic_numbers=np.array([1, 1]), energy=0.0)
    with pytest.raises(InputError, match=r"x\.xyz: frame 1: atoms .* apart"):
        pack([frames[0], bad], 3.0, dtype=torch.float64, source="x.xyz")
