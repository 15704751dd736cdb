"""Errors and predictions of a potential on labelled frames, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from torch import Tensor

from mlip.graph import AtomGraph
from mlip.potential import Potential
from mlip.training.hessians import with_products
from mlip.training.loss import Labels
from mlip.training.metrics import ErrorSums
from mlip.training.packed import Batch, PackedFrames
from mlip.training.sampling import sequential_shares


@dataclass(frozen=True)
class Predictions:
    """Predicted and reference values, frame after frame; a reference that is missing is NaN.

    Attributes:
        energy: eV, (structures,).
        forces: eV/Å, (atoms, 3); None where not computed.
        stress: eV/Å³, (structures, 3, 3), NaN for a cell without volume; None where not computed.
        num_atoms: Of each frame.
        reference_energy: eV.
        reference_forces: eV/Å.
        reference_stress: eV/Å³.
    """

    energy: npt.NDArray[np.float64]
    forces: npt.NDArray[np.float64] | None
    stress: npt.NDArray[np.float64] | None
    num_atoms: npt.NDArray[np.int64]
    reference_energy: npt.NDArray[np.float64]
    reference_forces: npt.NDArray[np.float64]
    reference_stress: npt.NDArray[np.float64]


def evaluate_errors(
    potential: Potential,
    data: PackedFrames,
    *,
    batch_size: int,
    labels: Labels,
    species: Sequence[int] = (),
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, float]:
    """Errors on labelled frames, over all processes.

    Args:
        potential: The potential.
        data: Frames.
        batch_size: Frames computed together.
        labels: Which errors are wanted; energies are always there.
        species: Elements whose force errors are also given apart.
        rank: This process.
        world_size: Number of processes.

    Returns:
        See ``ErrorSums.result``.
    """
    sums = ErrorSums(species, modes=True, device=data.device)
    for batch, output in _outputs(potential, data, batch_size, labels, rank, world_size):
        sums.add(output, batch)
    if world_size > 1:
        sums.reduce()
    return sums.result()


def predict(
    potential: Potential, data: PackedFrames, *, batch_size: int, labels: Labels, species: Sequence[int] = ()
) -> tuple[Predictions, dict[str, float]]:
    """Predictions for labelled frames, and their errors."""
    sums = ErrorSums(species, modes=True, device=data.device)
    kept: dict[str, list[npt.NDArray[np.float64]]] = {"energy": [], "forces": [], "stress": []}
    for batch, output in _outputs(potential, data, batch_size, labels):
        sums.add(output, batch)
        for name, parts in kept.items():
            if name in output:
                parts.append(output[name].detach().double().cpu().numpy())
    joined = {name: np.concatenate(parts) if parts else None for name, parts in kept.items()}
    energy = joined["energy"]
    predictions = Predictions(
        energy=energy if energy is not None else np.zeros(0),
        forces=joined["forces"],
        stress=joined["stress"],
        num_atoms=data.atom_counts,
        reference_energy=data.energy.cpu().numpy(),
        reference_forces=data.forces.double().cpu().numpy(),
        reference_stress=data.stress.double().cpu().numpy(),
    )
    return predictions, sums.result()


def wanted_hessians(batch: Batch, labels: Labels) -> Tensor | None:
    """Structures of which these labels need the head's Hessian."""
    if labels.hvp:
        return torch.arange(batch.graph.num_structures, device=batch.graph.positions.device)
    return batch.hessians.structures if labels.hessian else None


def _outputs(
    potential: Potential,
    data: PackedFrames,
    batch_size: int,
    labels: Labels,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    trainable = [p for p in potential.parameters() if p.requires_grad]
    was_training = potential.training
    potential.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        for frames in sequential_shares(len(data), batch_size, rank, world_size):
            batch = data.batch(frames)
            flat = torch.linalg.det(batch.graph.cell) == 0 if labels.stress else None
            output = potential(
                batch.graph if flat is None else _with_volume(batch.graph, flat),
                forces=labels.forces,
                stress=labels.stress,
                hessian_of=wanted_hessians(batch, labels),
            )
            if flat is not None:
                output["stress"][flat] = torch.nan
                batch = replace(batch, stress=batch.stress.masked_fill(flat.view(-1, 1, 1), torch.nan))
            if labels.hvp:  # the same displacements each time, so that epochs can be compared
                generator = torch.Generator().manual_seed(int(frames[0]))
                output |= with_products(potential, batch.graph, generator=generator)
            yield batch, output
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        potential.train(was_training)


def _with_volume(graph: AtomGraph, flat: Bool[Tensor, " structures"]) -> AtomGraph:
    """Complete the cells that lack lattice vectors, so that the others of a batch can have a stress.

    No edge passes along a vector that is not periodic, so that energies and forces stay what they are.
    """
    from ase.geometry import complete_cell

    cell = graph.cell.clone()
    for s in flat.nonzero().flatten().tolist():
        periodic = graph.cell[s] * graph.pbc[s].unsqueeze(1)
        cell[s] = torch.from_numpy(complete_cell(periodic.double().cpu().numpy())).to(cell)
    return replace(graph, cell=cell)
