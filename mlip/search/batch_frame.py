"""Tables of many structures where they stand: internal coordinates, gradients, model Hessians."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mlip.search.batch_walker import displaced
from mlip.search.internal_values import JoinedInternals, join_internals

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from mlip.search.batch_walker import Walker
    from mlip.search.internals import Internals

TRUST: Final = 0.5
"""Norm of the first step in internal coordinates, Å and rad, at most."""

RIGID: Final = 10.0
"""eV/Å² that stand against moving or turning a molecule as a whole."""

RIDGE: Final = 1e-3
"""eV/Å² for every displacement, so that none is without stiffness."""

LARGEST: Final = 1e100
"""Element of a matrix that still means something."""


def cholesky(matrices: Tensor) -> Tensor:
    """Cholesky factors of positive semidefinite matrices, (structures, n, n).

    Where atoms nearly coincide, as when a structure runs away, a matrix may be positive definite only on
    paper, or not finite: its diagonal is lifted as far as is needed, or it counts as the identity, so that
    the others of the batch go on.
    """
    factor, failed = torch.linalg.cholesky_ex(matrices)
    if not failed.any():
        return factor
    one = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    for place in failed.nonzero().squeeze(1).tolist():
        matrix = matrices[place] if float(matrices[place].abs().max()) < LARGEST else one
        lift = 1e-15 * float(matrix.diagonal().max())
        while failed[place]:
            lift *= 10.0
            factor[place], failed[place] = torch.linalg.cholesky_ex(matrix + lift * one)
    return factor


@dataclass(frozen=True, eq=False)
class Stand:
    """An accepted point, and the step that was taken from it."""

    positions: Float64[np.ndarray, "atoms 3"]
    cell: Float64[np.ndarray, "3 3"]
    energy: float
    objective: float
    gradient: Float64[np.ndarray, "rows 3"]
    values: Float64[np.ndarray, " coordinates"]
    slope: Float64[np.ndarray, " coordinates"]
    predicted: float
    length: float


@dataclass(eq=False)
class Memory:
    """What is kept of a structure between steps."""

    internals: Internals
    trust: float = TRUST
    stand: Stand | None = None
    rejected: int = 0
    plus: list[Float64[np.ndarray, " coordinates"]] = field(default_factory=list)
    minus: list[Float64[np.ndarray, " coordinates"]] = field(default_factory=list)


class Frame:
    """Several walkers where they stand, in padded tables.

    Attributes:
        values, slope: Internal coordinates and the gradient by them, (structures, coordinates).
        rows: B, (structures, coordinates, displacements).
        model, factor: M and its Cholesky factor.
        gradient: (structures, displacements).
    """

    def __init__(self, walkers: list[Walker], *, atoms: int = 0, coordinates: int = 0) -> None:
        self.walkers = walkers
        self.memories: list[Memory] = [walker.memory for walker in walkers]
        self.atoms = max(atoms, max(len(walker.atoms) for walker in walkers))
        self.joined: JoinedInternals = join_internals(
            [memory.internals for memory in self.memories], atoms=self.atoms, coordinates=coordinates
        )
        count, size = len(walkers), self.atoms
        self.positions = np.zeros((count, size, 3))
        self.cells = np.stack([walker.atoms.cell.array for walker in walkers])
        self.scales = (
            None if walkers[0].scale is None else np.array([float(walker.scale or 1.0) for walker in walkers])
        )
        gradient = np.zeros((count, size + 3, 3))
        free = np.zeros((count, size + 3, 3), dtype=bool)
        stiffness = np.zeros((count, self.joined.coordinates))
        for s, walker in enumerate(walkers):
            n = len(walker.atoms)
            self.positions[s, :n] = walker.atoms.positions
            gradient[s, :n], gradient[s, -3:] = walker.gradient[:n], walker.gradient[-3:]
            free[s, :n] = walker.free[:, None]
            stiffness[s, : len(self.memories[s].internals.stiffness)] = self.memories[s].internals.stiffness
        free[:, -3:] = self.scales is not None
        flat = self.positions.reshape(-1, 3)
        self.free = torch.from_numpy(free.reshape(count, -1).astype(np.float64))
        self.gradient = torch.from_numpy(gradient.reshape(count, -1))
        self.stiffness = torch.from_numpy(stiffness)
        self.values = self.joined.values(flat, self.cells)
        rows = self.joined.derivatives(flat, self.cells, self.scales)
        self.rows = torch.from_numpy(rows) * self.free[:, None]
        weighted = self.rows * self.stiffness.sqrt()[:, :, None]
        self.model = weighted.mT @ weighted + torch.diag_embed(RIDGE + 1.0 - self.free)
        rigid = self._rigid()
        self.model += RIGID * rigid.mT @ rigid
        self.factor = cholesky(self.model)
        self.slope = self._slope()

    def _rigid(self) -> Tensor:
        """(structures, 6, displacements): moves and turns as a whole, zero where they are no such thing."""
        count = len(self.walkers)
        inside = np.arange(self.atoms) < np.array([[len(walker.atoms)] for walker in self.walkers])
        whole = np.array([walker.free.all() for walker in self.walkers])
        turns = whole & np.array([not walker.atoms.pbc.any() for walker in self.walkers])
        sizes = inside.sum(axis=1)[:, None, None]
        centred = (self.positions - self.positions.sum(axis=1, keepdims=True) / sizes) * inside[:, :, None]
        centred /= np.maximum(np.linalg.norm(centred, axis=(1, 2)), 1e-3)[:, None, None]
        moves = np.zeros((count, 6, self.atoms + 3, 3))
        for axis in range(3):
            following, last = (axis + 1) % 3, (axis + 2) % 3
            moves[:, axis, :-3, axis] = inside / np.sqrt(sizes[:, 0]) * whole[:, None]
            moves[:, 3 + axis, :-3, following] = -centred[:, :, last] * turns[:, None]
            moves[:, 3 + axis, :-3, last] = centred[:, :, following] * turns[:, None]
        return torch.from_numpy(moves.reshape(count, 6, -1))

    def _slope(self) -> Float64[np.ndarray, "structures coordinates"]:
        solved = torch.cholesky_solve(self.gradient.unsqueeze(2), self.factor)
        return (self.stiffness * (self.rows @ solved).squeeze(2)).numpy()

    def patch(self, places: list[int]) -> None:
        """Look again at some of the walkers, which have moved."""
        part = Frame([self.walkers[s] for s in places], atoms=self.atoms, coordinates=self.joined.coordinates)
        for name in ("positions", "cells", "gradient", "values", "rows", "model", "factor", "slope"):
            getattr(self, name)[places] = getattr(part, name)

    def displaced(
        self, change: Float64[np.ndarray, "structures displacements"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and cells after displacements."""
        rows = change.reshape(len(self.walkers), -1, 3)
        return displaced(self.positions, self.cells, rows, self.scales)

    def travelled(
        self,
        positions: Float64[np.ndarray, "structures atoms 3"],
        cells: Float64[np.ndarray, "structures 3 3"],
    ) -> Float64[np.ndarray, "structures coordinates"]:
        """Change of the internal coordinates from here to there."""
        since = None if self.scales is None else self.cells
        there = self.joined.values(positions.reshape(-1, 3), cells, since=since)
        return self.joined.difference(there, self.values)

    def history(self) -> tuple[Tensor, Tensor]:
        """The updates of all Hessians, a and b, (structures, updates, coordinates), padded with zeros."""
        count, longest = len(self.walkers), max(len(memory.plus) for memory in self.memories)
        plus = np.zeros((count, longest, self.joined.coordinates))
        minus = np.zeros_like(plus)
        for s, memory in enumerate(self.memories):
            for k, (a, b) in enumerate(zip(memory.plus, memory.minus, strict=True)):
                plus[s, k, : len(a)] = a
                minus[s, k, : len(b)] = b
        return torch.from_numpy(plus), torch.from_numpy(minus)
