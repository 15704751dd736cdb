"""`AtomGraph`: structures and their neighbour edges, always batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mlip.errors import InputError


@dataclass(frozen=True)
class AtomGraph:
    """One or more structures as one graph; lengths in Å.

    Edges are sorted by receiver. Atoms of one structure are contiguous, in ascending `batch`.
    """

    positions: Float[Tensor, "atoms 3"]
    atomic_numbers: Int[Tensor, " atoms"]
    cell: Float[Tensor, "structures 3 3"]
    """Rows are lattice vectors; zero rows are allowed for directions that are not periodic."""
    pbc: Bool[Tensor, "structures 3"]
    batch: Int[Tensor, " atoms"]
    """Structure index of each atom."""
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    shifts: Float[Tensor, "edges 3"]
    """Integer lattice shifts of the sender."""

    @property
    def num_structures(self) -> int:
        return self.cell.shape[0]

    @property
    def num_atoms(self) -> int:
        return self.positions.shape[0]

    @property
    def num_edges(self) -> int:
        return self.senders.shape[0]

    @property
    def atoms_per_structure(self) -> Int[Tensor, " structures"]:
        """Number of atoms of each structure."""
        return torch.bincount(self.batch, minlength=self.num_structures)

    @property
    def odd_electrons(self) -> Bool[Tensor, " structures"]:
        """Whether each structure is a molecule that has an odd number of electrons if it is neutral."""
        electrons = torch.zeros_like(self.pbc[:, 0], dtype=torch.int64)
        electrons = electrons.index_add(0, self.batch, self.atomic_numbers)
        return (electrons % 2 == 1) & ~self.pbc.any(1)

    @property
    def meets_images(self) -> Bool[Tensor, " structures"]:
        """Whether atoms of each structure have neighbours in periodic images of its cell."""
        meets = torch.zeros_like(self.pbc[:, 0])
        across = (self.shifts != 0).any(dim=1)
        meets[self.batch.index_select(0, self.receivers[across])] = True
        return meets

    def edge_vectors(self) -> Float[Tensor, "edges 3"]:
        """From receiver to sender: `positions[senders] - positions[receivers] + shifts @ cell`, Å."""
        vectors = self.positions.index_select(0, self.senders) - self.positions.index_select(
            0, self.receivers
        )
        if self.num_structures == 1:
            return vectors + self.shifts @ self.cell[0]
        cell = self.cell.index_select(0, self.batch.index_select(0, self.receivers))
        return vectors + torch.einsum("ei,eij->ej", self.shifts, cell)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> AtomGraph:
        """A copy on another device or with another floating-point type (indices keep theirs)."""
        return AtomGraph(
            positions=self.positions.to(device=device, dtype=dtype),
            atomic_numbers=self.atomic_numbers.to(device=device),
            cell=self.cell.to(device=device, dtype=dtype),
            pbc=self.pbc.to(device=device),
            batch=self.batch.to(device=device),
            senders=self.senders.to(device=device),
            receivers=self.receivers.to(device=device),
            shifts=self.shifts.to(device=device, dtype=dtype),
        )


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Join graphs into one; the structures keep their order.

    Raises:
        InputError: `graphs` is empty.
    """
    if not graphs:
        raise InputError("`graphs` is empty; at least one graph is needed to make a batch")
    if len(graphs) == 1:
        return graphs[0]
    atoms = torch.tensor([0] + [g.num_atoms for g in graphs[:-1]]).cumsum(0).tolist()
    structures = torch.tensor([0] + [g.num_structures for g in graphs[:-1]]).cumsum(0).tolist()
    return AtomGraph(
        positions=torch.cat([g.positions for g in graphs]),
        atomic_numbers=torch.cat([g.atomic_numbers for g in graphs]),
        cell=torch.cat([g.cell for g in graphs]),
        pbc=torch.cat([g.pbc for g in graphs]),
        batch=torch.cat([g.batch + k for g, k in zip(graphs, structures, strict=True)]),
        senders=torch.cat([g.senders + k for g, k in zip(graphs, atoms, strict=True)]),
        receivers=torch.cat([g.receivers + k for g, k in zip(graphs, atoms, strict=True)]),
        shifts=torch.cat([g.shifts for g in graphs]),
    )
