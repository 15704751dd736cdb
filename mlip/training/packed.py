"""Labelled structures with their neighbour lists in a few long tensors, to cut batches from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.errors import InputError
from mlip.graph import AtomGraph
from mlip.training.hessians import LOW_MODES, HessianLabels, bare_atoms, labels_of

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.datasets import Frame


@dataclass(frozen=True)
class Batch:
    """Some structures with their labels; a label that a structure lacks is NaN.

    Attributes:
        graph: The structures.
        energy: eV.
        forces: eV/Å.
        stress: eV/Å³.
        weight: Weight of each structure in the loss.
        hessians: Of the structures that have one.
        num_structures_in_step: Structures that share this optimiser step, over all processes.
        num_atoms_in_step: Atoms in them.
    """

    graph: AtomGraph
    energy: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "structures 3 3"]
    weight: Float[Tensor, " structures"]
    hessians: HessianLabels
    num_structures_in_step: int
    num_atoms_in_step: int

    def structure(self, index: int) -> Atoms:
        """One of the structures as ASE atoms."""
        graph, mine = self.graph, self.graph.batch == index
        return bare_atoms(
            graph.atomic_numbers[mine].cpu().numpy(),
            graph.positions[mine].double().cpu().numpy(),
            graph.cell[index].double().cpu().numpy(),
            graph.pbc[index].cpu().numpy(),
        )


@dataclass(frozen=True)
class PackedFrames:
    """Structures end to end: atoms of all, then edges of all, with offsets; Hessians of those that have one.

    Edges name atoms within their structure.

    Small integer types keep millions of edges in memory: 4 + 4 + 3 bytes an edge.
    """

    positions: Float[Tensor, "atoms 3"]
    atomic_numbers: Int[Tensor, " atoms"]
    forces: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Tensor
    energy: Float[Tensor, " structures"]
    stress: Float[Tensor, "structures 3 3"]
    weight: Float[Tensor, " structures"]
    senders: Int[Tensor, " edges"]
    receivers: Int[Tensor, " edges"]
    shifts: Int[Tensor, "edges 3"]
    hessian: Float[Tensor, " numbers"]
    low_modes: Float[Tensor, "coordinates modes"]
    atom_counts: npt.NDArray[np.int64]
    edge_counts: npt.NDArray[np.int64]
    hessian_sizes: npt.NDArray[np.int64]
    """Coordinates of each structure that has a Hessian, 0 for the others."""

    @cached_property
    def atom_starts(self) -> npt.NDArray[np.int64]:
        """First atom of each structure."""
        return np.cumsum(self.atom_counts) - self.atom_counts

    @cached_property
    def edge_starts(self) -> npt.NDArray[np.int64]:
        """First edge of each structure."""
        return np.cumsum(self.edge_counts) - self.edge_counts

    def __len__(self) -> int:
        return len(self.atom_counts)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.positions.device

    @property
    def has_stress(self) -> bool:
        """Whether there are stresses to compare with, of structures that have a cell to compute one."""
        return bool((self.stress.isfinite().all(-1).all(-1) & (torch.linalg.det(self.cell) != 0)).any())

    @property
    def has_hessians(self) -> bool:
        """Whether there are Hessians to compare with."""
        return bool(self.hessian_sizes.any())

    def to(self, device: torch.device | str) -> PackedFrames:
        """The same data on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def batch(
        self,
        frames: npt.NDArray[np.int64],
        *,
        counted: bool = True,
        whole: npt.NDArray[np.int64] | None = None,
    ) -> Batch:
        """Cut out a batch.

        Args:
            frames: Indices of the structures.
            counted: False gives them weight 0.
            whole: Structures of the whole optimiser step, over all processes; ``frames`` by default.
        """
        which = torch.from_numpy(frames).to(self.device)
        atoms, atoms_each = self._spans(self.atom_starts[frames], self.atom_counts[frames])
        edges, edges_each = self._spans(self.edge_starts[frames], self.edge_counts[frames])
        first_atom = torch.cumsum(atoms_each, 0) - atoms_each
        to_batch = torch.repeat_interleave(first_atom, edges_each, output_size=len(edges))
        structure = torch.repeat_interleave(
            torch.arange(len(frames), device=self.device), atoms_each, output_size=len(atoms)
        )
        graph = AtomGraph(
            positions=self.positions[atoms],
            atomic_numbers=self.atomic_numbers[atoms],
            cell=self.cell[which],
            pbc=self.pbc[which],
            batch=structure,
            senders=self.senders[edges].long() + to_batch,
            receivers=self.receivers[edges].long() + to_batch,
            shifts=self.shifts[edges].to(self.positions.dtype),
        )
        weight = self.weight[which]
        step = frames if whole is None else whole
        return Batch(
            graph=graph,
            energy=self.energy[which],
            forces=self.forces[atoms],
            stress=self.stress[which],
            weight=weight if counted else torch.zeros_like(weight),
            hessians=self._hessians(frames, step),
            num_structures_in_step=len(step),
            num_atoms_in_step=int(self.atom_counts[step].sum()),
        )

    def _hessians(self, frames: npt.NDArray[np.int64], step: npt.NDArray[np.int64]) -> HessianLabels:
        labelled = np.flatnonzero(self.hessian_sizes[frames])
        matrices, modes = [], []
        for frame in frames[labelled]:
            size = int(self.hessian_sizes[frame])
            start, row = int(self._hessian_starts[frame]), int(self._mode_starts[frame])
            matrices.append(self.hessian[start : start + size * size].view(size, size))
            modes.append(self.low_modes[row : row + size])
        return HessianLabels(
            structures=torch.from_numpy(labelled).to(self.device),
            matrices=matrices,
            low_modes=modes,
            num_in_step=int(np.count_nonzero(self.hessian_sizes[step])),
        )

    @cached_property
    def _hessian_starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.hessian_sizes**2) - self.hessian_sizes**2

    @cached_property
    def _mode_starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.hessian_sizes) - self.hessian_sizes

    def _spans(
        self, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> tuple[Int[Tensor, " items"], Int[Tensor, " structures"]]:
        """Indices ``start, start + 1, …`` of each span, one after another, and the length of each."""
        total = int(counts.sum())
        before = np.cumsum(counts) - counts
        each = torch.from_numpy(counts).to(self.device)
        offset = torch.from_numpy(starts - before).to(self.device)
        index = torch.arange(total, device=self.device)
        return index + torch.repeat_interleave(offset, each, output_size=total), each


def pack(frames: Sequence[Frame], cutoff: float, *, dtype: torch.dtype, source: str = "data") -> PackedFrames:
    """Build the neighbour lists of labelled structures and pack them.

    Args:
        frames: Structures.
        cutoff: Å.
        dtype: Of positions, forces, cells and stresses; energies are float64.
        source: What the frames are, for error messages.

    Raises:
        InputError: There are no frames, or one cannot be used; the message names it.
    """
    if not frames:
        raise InputError(f"{source}: there are no frames")
    parts = [_one(frame, cutoff, f"{source}: frame {i}") for i, frame in enumerate(frames)]

    def long(key: str, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.concatenate([part[key] for part in parts])).to(dtype)

    shifts = long("shifts", torch.int64)
    reach = int(shifts.abs().max()) if shifts.numel() else 0
    return PackedFrames(
        positions=long("positions", dtype),
        atomic_numbers=long("atomic_numbers", torch.int64),
        forces=long("forces", dtype),
        cell=long("cell", dtype),
        pbc=long("pbc", torch.bool),
        energy=long("energy", torch.float64),
        stress=long("stress", dtype),
        weight=long("weight", dtype),
        senders=long("senders", torch.int32),
        receivers=long("receivers", torch.int32),
        shifts=shifts.to(torch.int8 if reach < 128 else torch.int16),
        hessian=long("hessian", dtype),
        low_modes=long("low_modes", dtype),
        atom_counts=np.array([len(part["positions"]) for part in parts], dtype=np.int64),
        edge_counts=np.array([len(part["senders"]) for part in parts], dtype=np.int64),
        hessian_sizes=np.array([len(part["low_modes"]) for part in parts], dtype=np.int64),
    )


def _one(frame: Frame, cutoff: float, name: str) -> dict[str, npt.NDArray[np.generic]]:
    from ase import Atoms

    from mlip.neighbors import build_graph

    atoms = Atoms(numbers=frame.atomic_numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    try:
        graph = build_graph(atoms, cutoff)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    missing = np.full((len(frame), 3), np.nan)
    none = np.zeros((0, 0)), np.zeros((0, LOW_MODES))
    hessian, low_modes = none if frame.hessian is None else labels_of(frame)
    return {
        "positions": graph.positions.numpy(),
        "atomic_numbers": frame.atomic_numbers,
        "forces": missing if frame.forces is None else frame.forces,
        "cell": graph.cell.numpy(),
        "pbc": graph.pbc.numpy(),
        "energy": np.array([np.nan if frame.energy is None else frame.energy]),
        "stress": np.full((1, 3, 3), np.nan) if frame.stress is None else frame.stress[None],
        "weight": np.array([frame.weight]),
        "hessian": hessian.ravel(),
        "low_modes": low_modes,
        "senders": graph.senders.numpy().astype(np.int32),
        "receivers": graph.receivers.numpy().astype(np.int32),
        "shifts": graph.shifts.numpy().astype(np.int16),
    }
