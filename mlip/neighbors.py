"""Neighbour lists: matscipy's cell list behind checks that turn bad geometry into clear errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mlip.errors import InputError
from mlip.graph import AtomGraph

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE = 0.05
"""Atoms closer than this (Å) are an error in the input, not a geometry."""


def _check_geometry(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"`positions` has shape {positions.shape} but must be (atoms, 3)")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise InputError(
            f"position of atom {bad[0]} is {positions[bad[0]].tolist()} but must be finite; "
            f"{bad.size} atom(s) have NaN or infinite coordinates"
        )
    if not np.isfinite(cell).all():
        raise InputError("`cell` holds NaN or infinite numbers; give three finite lattice vectors")
    if not pbc.any():
        return
    lengths = np.linalg.norm(cell, axis=1)
    axes = cell[pbc]
    volume = np.sqrt(max(np.linalg.det(axes @ axes.T), 0.0))
    if (lengths[pbc] < 1e-3).any() or volume < 1e-6 * np.prod(lengths[pbc]):
        raise InputError(
            f"the cell {cell.tolist()} has no volume along its periodic directions {pbc.tolist()}; "
            "give lattice vectors that span them, or switch `pbc` off"
        )


def _boxed(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """A cell with all three vectors, and positions with the same neighbours inside it along the free ones.

    Free vectors are orthogonal to the periodic ones, so that periodic images never mix in. Gaps along them
    that nothing reaches across are narrowed: matscipy fills all of the cell with bins, and fragments that
    have flown apart would make billions of them.
    """
    full = np.array(cell, dtype=float)
    full[~pbc] = 0.0
    _, _, basis = np.linalg.svd(full[pbc], full_matrices=True)
    for place, axis in zip(np.flatnonzero(~pbc), basis[int(pbc.sum()) :], strict=True):
        along = positions @ axis
        order = np.argsort(along)
        steps = np.diff(along[order], prepend=along[order[0]])
        inside = np.empty_like(along)
        inside[order] = along[order] - np.maximum(steps - 2.0 * cutoff, 0.0).cumsum()
        inside += cutoff - inside.min()
        positions = positions + (inside - along)[:, None] * axis
        full[place] = (inside.max() + cutoff) * axis
    return full, positions


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of atoms closer than `cutoff`, periodic images included.

    Args:
        positions: (atoms, 3), Å; atoms may lie outside the cell.
        cell: (3, 3), rows are lattice vectors, Å; any handedness, smaller than the cutoff or not.
        pbc: (3,) booleans, any mix.
        cutoff: Å.

    Returns:
        senders, receivers (edges,) int64 and shifts (edges, 3) int64, sorted by receiver, with
        `positions[senders] - positions[receivers] + shifts @ cell` shorter than the cutoff.

    Raises:
        InputError: positions or cell are not finite, or a periodic cell has no volume.
        ValueError: the cutoff is not positive.
    """
    from matscipy.neighbours import neighbour_list

    if not cutoff > 0:
        raise ValueError(f"`cutoff` is {cutoff} but must be positive")
    positions = np.ascontiguousarray(positions, dtype=float)
    pbc = np.asarray(pbc, dtype=bool)
    cell = np.asarray(cell, dtype=float)
    _check_geometry(positions, cell, pbc)
    if len(positions) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
    full, inside = _boxed(positions, cell, pbc, cutoff)
    receivers, senders, shifts = neighbour_list(
        "ijS",
        positions=inside,
        cell=full,
        pbc=pbc,
        cutoff=float(cutoff),
        numbers=np.ones(len(positions), np.int32),
    )
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], senders, receivers))
    return (
        senders[order].astype(np.int64),
        receivers[order].astype(np.int64),
        shifts[order].astype(np.int64),
    )


def check_distances(
    positions: np.ndarray, cell: np.ndarray, senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray
) -> None:
    """Raise `InputError` where two atoms overlap."""
    if len(senders) == 0:
        return
    vectors = positions[senders] - positions[receivers] + shifts @ np.asarray(cell)
    squared = np.einsum("ij,ij->i", vectors, vectors)
    worst = int(np.argmin(squared))
    if squared[worst] < MIN_DISTANCE**2:
        raise InputError(
            f"atoms {receivers[worst]} and {senders[worst]} are {np.sqrt(squared[worst]):.4f} Å apart "
            f"but must be at least {MIN_DISTANCE} Å apart; remove the duplicate atom or mend the cell"
        )


def build_graph(atoms: Atoms, cutoff: float, *, dtype: torch.dtype = torch.float64) -> AtomGraph:
    """The graph of one structure.

    Args:
        atoms: ASE structure.
        cutoff: Å.
        dtype: Floating-point type of positions, cell and shifts.

    Raises:
        InputError: no atoms, atoms that are not elements, positions that are not finite, atoms that
            overlap, or a periodic cell without volume.
    """
    positions, cell, pbc = atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc, bool)
    if len(positions) == 0:
        raise InputError("the structure has no atoms")
    if (atoms.numbers < 1).any() or (atoms.numbers > 118).any():
        first = int(np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))[0])
        raise InputError(f"atom {first} has atomic number {atoms.numbers[first]}, which is no element")
    senders, receivers, shifts = neighbor_list(positions, cell, pbc, cutoff)
    check_distances(positions, cell, senders, receivers, shifts)
    return AtomGraph(
        positions=torch.as_tensor(positions, dtype=dtype).clone(),
        atomic_numbers=torch.as_tensor(atoms.numbers.astype(np.int64)),
        cell=torch.as_tensor(cell, dtype=dtype)[None].clone(),
        pbc=torch.as_tensor(pbc)[None].clone(),
        batch=torch.zeros(len(positions), dtype=torch.int64),
        senders=torch.from_numpy(senders),
        receivers=torch.from_numpy(receivers),
        shifts=torch.as_tensor(shifts, dtype=dtype),
    )
