"""A neighbour list with a skin, reused while the atoms move little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mlip.graph import AtomGraph
from mlip.neighbors import build_graph

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float
    from numpy.typing import NDArray
    from torch import Tensor

_SMALLEST_VOLUME: Final = 1e-6  # Å³; below it a cell is treated as having no volume


class SkinNeighbors:
    """Graphs of one structure after another, sharing a neighbour list as long as it is provably complete.

    The list is built with radius cutoff + skin. Let the cell have changed since from h to h', F = h⁻¹h', and
    atom i have moved from x_i to x'_i. A pair that is not in the list was further apart than cutoff + skin,
    so that it is now further apart than

        σ_min(F) (cutoff + skin) − 2 max_i |x'_i − x_i F|,

    and the list is complete while this is at least the cutoff. Without a change of cell it is Verlet's
    criterion, no atom moved by more than skin/2. Edges longer than the cutoff are left out of every graph, so
    results do not depend on the skin.

    Source: L. Verlet, Phys. Rev. 159, 98 (1967); the strained form follows from |dF| ≥ σ_min(F)|d|.
    """

    def __init__(
        self,
        cutoff: float,
        *,
        skin: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Start with no list.

        Args:
            cutoff: Radius of the graphs, Å.
            skin: Added to the radius of the list, Å; 0 builds a new list for every structure that differs.
            device: Where the graphs live.
        """
        self.cutoff = cutoff
        self.skin = skin
        self.device = torch.device(device)
        self.builds = 0
        """Number of lists built so far."""
        self._list: AtomGraph | None = None

    def graph(self, atoms: Atoms) -> AtomGraph:
        """The graph of `atoms`, with all edges up to the cutoff and none beyond.

        Raises:
            InputError: From `mlip.neighbors.build_graph`: positions that are not finite, coinciding atoms, a
                flat cell.
        """
        if self._list is None or not self._complete(atoms):
            self._build(atoms)
        assert self._list is not None
        listed = self._list
        positions = torch.from_numpy(atoms.positions).to(device=self.device)
        cell = atoms.cell.array
        if not np.array_equal(cell, self._cell):
            self._set_cell(cell)
        vectors = positions.index_select(0, listed.senders) - positions.index_select(0, listed.receivers)
        if self._translations is not None:
            vectors += self._translations
        near = vectors.square_().sum(1) <= self.cutoff**2
        senders, receivers, shifts = listed.senders, listed.receivers, listed.shifts
        if not near.all():
            kept = near.nonzero().squeeze(1)
            senders, receivers, shifts = senders[kept], receivers[kept], shifts[kept]
        return AtomGraph(
            positions=positions,
            atomic_numbers=listed.atomic_numbers,
            cell=self._cell_tensor,
            pbc=listed.pbc,
            batch=listed.batch,
            senders=senders,
            receivers=receivers,
            shifts=shifts,
        )

    def _build(self, atoms: Atoms) -> None:
        self._list = build_graph(atoms, self.cutoff + self.skin).to(device=self.device)
        self.builds += 1
        self._numbers = atoms.numbers.copy()
        self._pbc = atoms.pbc.copy()
        self._built_positions = atoms.positions.copy()
        self._built_cell = atoms.cell.array.copy()
        self._set_cell(self._built_cell)

    def _set_cell(self, cell: Float[NDArray[np.float64], "3 3"]) -> None:
        assert self._list is not None
        self._cell = cell.copy()
        self._cell_tensor = torch.from_numpy(self._cell).to(device=self.device).unsqueeze(0)
        shifts = self._list.shifts
        self._translations: Tensor | None = None
        if bool(shifts.any()):
            self._translations = shifts @ self._cell_tensor[0]

    def _complete(self, atoms: Atoms) -> bool:
        if not (np.array_equal(atoms.numbers, self._numbers) and np.array_equal(atoms.pbc, self._pbc)):
            return False
        built, cell, smallest_stretch = self._built_positions, atoms.cell.array, 1.0
        if not np.array_equal(cell, self._built_cell):
            if not np.isfinite(cell).all():
                return False
            volumes = abs(np.linalg.det(self._built_cell)), abs(np.linalg.det(cell))
            if not min(volumes) > _SMALLEST_VOLUME:
                return False
            deformation = np.linalg.solve(self._built_cell, cell)
            built = built @ deformation
            smallest_stretch = float(np.linalg.svd(deformation, compute_uv=False)[-1])
        moved = atoms.positions - built
        farthest = float(np.einsum("ij,ij->i", moved, moved).max(initial=0.0)) ** 0.5
        # written so that positions that are not finite ask for a new list, whose construction reports them
        return smallest_stretch * (self.cutoff + self.skin) - 2.0 * farthest >= self.cutoff
