from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlip.errors import InputError
from mlip.neighbors import MIN_DISTANCE, build_graph, check_distances, neighbor_list

Edges = set[tuple[int, int, int, int, int]]


def brute_force(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[Edges, np.ndarray]:
    """All (sender, receiver, shift) closer than the cutoff, and the distances of every pair considered."""
    if len(positions) == 0:
        return set(), np.zeros(0)
    full = cell.astype(float).copy()
    if not pbc.all():
        # any independent vectors do along free directions, where shifts are zero
        _, _, basis = np.linalg.svd(full[pbc], full_matrices=True)
        full[~pbc] = basis[int(pbc.sum()) :]
    # heights of the cell bound the shifts that can matter
    heights = 1 / np.linalg.norm(np.linalg.inv(full), axis=0)
    fractional = positions @ np.linalg.inv(full)
    reach = np.ceil(cutoff / heights + np.ptp(fractional, axis=0)).astype(int) * pbc
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    vectors = positions[None, :, None] - positions[:, None, None] + (shifts @ full)[None, None]
    distances = np.linalg.norm(vectors, axis=-1)
    edges = {
        (int(s), int(r), *map(int, shifts[k]))
        for r, s, k in zip(*np.nonzero(distances < cutoff), strict=True)
        if s != r or shifts[k].any()
    }
    return edges, distances


def as_set(senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray) -> Edges:
    return {
        (int(s), int(r), *map(int, shift)) for s, r, shift in zip(senders, receivers, shifts, strict=True)
    }


def random_structure(
    count: int,
    pbc: tuple[bool, bool, bool],
    size: float,
    skew: float,
    outside: float,
    left_handed: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    cell = size * (np.diag(random.uniform(0.6, 1.4, 3)) + skew * random.uniform(-1, 1, (3, 3)))
    if (np.linalg.det(cell) < 0) != left_handed:
        cell[[0, 1]] = cell[[1, 0]]
    positions = random.uniform(-outside, 1 + outside, (count, 3)) @ cell
    return positions, cell, np.array(pbc)


@given(
    structure=st.builds(
        random_structure,
        count=st.integers(0, 7),
        pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        size=st.floats(1.5, 12.0),
        skew=st.floats(0.0, 0.6),
        outside=st.sampled_from([0.0, 0.3, 2.5]),
        left_handed=st.booleans(),
        seed=st.integers(0, 2**31),
    ),
    cutoff=st.floats(0.5, 6.0),
    zero_rows=st.booleans(),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_brute_force(
    structure: tuple[np.ndarray, np.ndarray, np.ndarray], cutoff: float, zero_rows: bool
) -> None:
    positions, cell, pbc = structure
    lengths = np.linalg.norm(cell, axis=1)
    assume(abs(np.linalg.det(cell)) > 0.1 * np.prod(lengths))
    if zero_rows:
        cell = cell * pbc[:, None]
    expected, distances = brute_force(positions, cell, pbc, cutoff)
    assume(len(expected) < 4000)
    assume((abs(distances - cutoff) > 1e-9).all())
    before = positions.copy(), cell.copy()
    senders, receivers, shifts = neighbor_list(positions, cell, pbc, cutoff)
    assert as_set(senders, receivers, shifts) == expected
    assert len(senders) == len(expected)
    assert (np.diff(receivers) >= 0).all()
    assert senders.dtype == receivers.dtype == shifts.dtype == np.int64
    assert not shifts[:, ~pbc].any()
    vectors = positions[senders] - positions[receivers] + shifts @ cell
    assert (np.linalg.norm(vectors, axis=1) < cutoff).all()
    assert np.array_equal(positions, before[0])
    assert np.array_equal(cell, before[1])


def test_known_crystals() -> None:
    """Shells of simple cubic: 6, 12, 8 neighbours; of one atom per cell."""
    for cutoff, expected in ((1.01, 6), (1.42, 18), (1.74, 26)):
        senders, _, shifts = neighbor_list(np.zeros((1, 3)), np.eye(3), np.array([True] * 3), cutoff)
        assert len(senders) == len({tuple(s) for s in shifts.tolist()}) == expected


def test_order_is_fixed() -> None:
    """Sorted by receiver, sender, shift, whatever the search gives."""
    positions, cell, pbc = random_structure(6, (True, True, False), 4.0, 0.3, 1.0, False, 3)
    senders, receivers, shifts = neighbor_list(positions, cell, pbc, 5.0)
    rows = [tuple(row) for row in np.column_stack([receivers, senders, shifts]).tolist()]
    assert rows == sorted(rows)


@pytest.mark.parametrize("pbc", [False, (True, False, False)])
@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_far_apart(distance: float, pbc: bool | tuple[bool, bool, bool]) -> None:
    """Dimers with nothing between them cost what as many dimers cost."""
    places = np.random.default_rng(0).uniform(-distance, distance, (40, 3))
    places[:, 0] *= 500.0 / distance
    positions = np.stack([places, places + np.array([0.0, 0.0, 1.0])], axis=1).reshape(-1, 3)
    cell, periodic = np.diag([2000.0, 0.0, 0.0]), np.broadcast_to(pbc, 3)
    senders, receivers, _ = neighbor_list(positions, cell, periodic, 5.0)
    assert (senders == np.arange(80) ^ 1).all()
    assert (receivers == np.arange(80)).all()


def test_no_atoms() -> None:
    senders, receivers, shifts = neighbor_list(np.zeros((0, 3)), np.eye(3), np.ones(3, bool), 5.0)
    assert senders.shape == receivers.shape == (0,)
    assert shifts.shape == (0, 3)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_bad_cutoff(cutoff: float) -> None:
    with pytest.raises(ValueError, match=f"`cutoff` is {cutoff} but must be positive"):
        neighbor_list(np.zeros((1, 3)), np.eye(3), np.ones(3, bool), cutoff)


def test_bad_shape() -> None:
    with pytest.raises(InputError, match=r"`positions` has shape \(3,\) but must be \(atoms, 3\)"):
        neighbor_list(np.zeros(3), np.eye(3), np.ones(3, bool), 5.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_not_finite(bad: float) -> None:
    positions = np.zeros((4, 3))
    positions[2, 1] = positions[3, 0] = bad
    with pytest.raises(
        InputError, match=rf"position of atom 2 is \[0.0, {bad}, 0.0\] but must be finite; 2 atom"
    ):
        neighbor_list(positions, np.eye(3), np.zeros(3, bool), 5.0)


@pytest.mark.parametrize("pbc", [True, False])
def test_cell_not_finite(pbc: bool) -> None:
    cell = np.eye(3)
    cell[0, 0] = np.nan
    with pytest.raises(
        InputError, match="`cell` holds NaN or infinite numbers; give three finite lattice vectors"
    ):
        build_graph(Atoms("H", cell=cell, pbc=pbc), 5.0)


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.zeros((3, 3)), (True, True, True)),
        ([[1, 0, 0], [0, 1, 0], [1, 1, 0]], (True, True, True)),
        ([[4, 0, 0], [8, 0, 0], [0, 0, 1]], (True, True, False)),
        ([[4, 0, 0], [0, 0, 0], [0, 0, 1]], (False, True, False)),
    ],
)
def test_no_volume(cell: list[list[float]], pbc: tuple[bool, bool, bool]) -> None:
    with pytest.raises(
        InputError, match=r"the cell .* has no volume along its periodic directions .* switch `pbc`"
    ):
        build_graph(Atoms("H", cell=cell, pbc=pbc), 5.0)


def test_flat_cell_where_it_does_not_matter() -> None:
    assert (
        build_graph(
            Atoms("H", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 0]], pbc=(True, False, False)), 4.0
        ).num_edges
        == 2
    )


@pytest.mark.parametrize("distance", [0.0, 0.049])
def test_overlap(distance: float) -> None:
    atoms = Atoms("HHeH", [[0, 0, 0], [3, 0, 0], [3, 0, distance]])
    message = rf"atoms 1 and 2 are {distance:.4f} Å apart but must be at least {MIN_DISTANCE} Å apart; remove"
    with pytest.raises(InputError, match=message):
        build_graph(atoms, 5.0)


def test_overlap_with_an_image() -> None:
    atoms = Atoms("HH", [[0, 0, 0], [0, 0, 3.0]], cell=[3, 3, 3], pbc=True)
    with pytest.raises(InputError, match=r"atoms 0 and 1 are 0.0000 Å apart"):
        build_graph(atoms, 5.0)


def test_close_is_not_overlap() -> None:
    build_graph(Atoms("HH", [[0, 0, 0], [0, 0, 0.051]]), 5.0)
    check_distances(np.zeros((1, 3)), np.eye(3), *(np.zeros(0, int),) * 2, np.zeros((0, 3)))


def test_no_structure() -> None:
    with pytest.raises(InputError, match="the structure has no atoms"):
        build_graph(Atoms(), 5.0)


@pytest.mark.parametrize("number", [0, -3, 119])
def test_no_element(number: int) -> None:
    with pytest.raises(InputError, match=f"atom 1 has atomic number {number}, which is no element"):
        build_graph(Atoms([1, number], [[0, 0, 0], [0, 0, 1]]), 5.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_build_graph(dtype: torch.dtype) -> None:
    atoms = Atoms("SiO", [[0, 0, 0], [0.3, 0.2, 1.6]], cell=[2.5, 3, 9], pbc=(True, True, False))
    graph = build_graph(atoms, 4.0, dtype=dtype)
    senders, receivers, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    assert graph.positions.dtype == graph.cell.dtype == graph.shifts.dtype == dtype
    assert graph.atomic_numbers.tolist() == [14, 8]
    assert graph.batch.tolist() == [0, 0]
    assert graph.cell.shape == (1, 3, 3)
    assert graph.pbc.tolist() == [[True, True, False]]
    assert np.array_equal(graph.senders, senders)
    assert np.array_equal(graph.receivers, receivers)
    assert np.array_equal(graph.shifts, shifts)
    assert np.allclose(graph.positions, atoms.positions)
    atoms.positions += 1.0
    atoms.cell[0, 0] = 7.0
    assert graph.positions[0, 0] == 0.0
    assert graph.cell[0, 0, 0] == 2.5
