"""The skin list against a list built anew at every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.calculators.skin import SkinNeighbors
from mlip.graph import AtomGraph
from mlip.neighbors import build_graph

CUTOFF = 4.0


def edges(graph: AtomGraph) -> set[tuple[int, ...]]:
    rows = torch.cat([graph.senders[:, None], graph.receivers[:, None], graph.shifts.round().long()], dim=1)
    return {tuple(row) for row in rows.tolist()}


def check(graph: AtomGraph, atoms: Atoms) -> None:
    fresh = build_graph(atoms, CUTOFF)
    assert graph.senders.shape == fresh.senders.shape
    assert edges(graph) == edges(fresh)
    assert torch.all(graph.receivers[1:] >= graph.receivers[:-1])
    for name in ("positions", "cell", "pbc", "atomic_numbers", "batch"):
        assert torch.equal(getattr(graph, name), getattr(fresh, name)), name


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    strain=st.sampled_from([0.0, 1e-3, 1e-2]),
    speed=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_every_step_has_all_edges_and_no_others(seed: int, pbc: tuple, strain: float, speed: float) -> None:
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, rng=rng)
    atoms.pbc = pbc
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    for _ in range(6):
        check(neighbors.graph(atoms), atoms)
        if strain:
            atoms.set_cell(
                atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True
            )
        atoms.positions += speed * rng.normal(size=atoms.positions.shape)


def test_small_moves_and_strains_keep_the_list() -> None:
    atoms = bulk("Si", cubic=True)
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    neighbors.graph(atoms)
    for _ in range(3):
        atoms.positions[0, 0] += 0.08
        atoms.set_cell(atoms.cell.array * 0.999, scale_atoms=True)
        check(neighbors.graph(atoms), atoms)
    assert neighbors.builds == 1
    atoms.positions[0, 0] += 0.3
    check(neighbors.graph(atoms), atoms)
    assert neighbors.builds == 2


def test_two_atoms_that_meet_halfway() -> None:
    """Each moves by less than the skin, both together by more."""
    atoms = Atoms("H2", positions=[[0.0, 0.0, 0.0], [CUTOFF + 0.55, 0.0, 0.0]])
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    assert neighbors.graph(atoms).num_edges == 0
    atoms.positions[:, 0] += [0.3, -0.3]
    check(neighbors.graph(atoms), atoms)
    assert neighbors.graph(atoms).num_edges == 2


def test_uniform_compression_brings_pairs_in() -> None:
    """Atoms follow the cell, so no atom moves against it, but distances shrink below the cutoff."""
    atoms = bulk("Si", cubic=True)
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    before = neighbors.graph(atoms).senders.shape[0]
    atoms.set_cell(atoms.cell.array * 0.87, scale_atoms=True)
    check(neighbors.graph(atoms), atoms)
    assert neighbors.graph(atoms).senders.shape[0] > before


@pytest.mark.parametrize(
    "change",
    [
        lambda atoms: atoms.set_pbc([True, False, True]),
        lambda atoms: atoms.set_atomic_numbers([6] * 8),
        lambda atoms: atoms.set_cell(atoms.cell.array * 2.0),
        lambda atoms: atoms.extend(Atoms("Si", positions=[[1.0, 1.0, 0.3]])),
        lambda atoms: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + atoms.cell[0, 0]),
    ],
)
def test_what_else_asks_for_a_new_list(change) -> None:
    atoms = bulk("Si", cubic=True)
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    neighbors.graph(atoms)
    change(atoms)
    check(neighbors.graph(atoms), atoms)
    assert neighbors.builds == 2


def test_no_skin_builds_whenever_something_moved() -> None:
    atoms = molecule("CH4")
    neighbors = SkinNeighbors(CUTOFF, skin=0.0)
    neighbors.graph(atoms)
    neighbors.graph(atoms)
    assert neighbors.builds == 1
    atoms.positions[0, 0] += 1e-6
    check(neighbors.graph(atoms), atoms)
    assert neighbors.builds == 2


def test_a_failed_build_does_no_harm() -> None:
    atoms = molecule("CH4")
    neighbors = SkinNeighbors(CUTOFF, skin=0.5)
    neighbors.graph(atoms)
    broken = atoms.copy()
    broken.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"must be finite"):
        neighbors.graph(broken)
    check(neighbors.graph(atoms), atoms)
