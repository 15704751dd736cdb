"""How well a potential relaxes held-out structures: what errors of energies and forces only hint at."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.distributed as dist

from mlip.alignment import rmsd
from mlip.datasets import Frame, LabelKeys, read_frames
from mlip.errors import InputError
from mlip.potential import Potential
from mlip.training.config import Data, RelaxationMetrics

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float64

    from mlip.calculators.surface import Surface
    from mlip.search.batch_relax import Outcome

SAME_MINIMUM: Final = 0.3
"""Å, root mean squared distance after superposition up to which two minima count as the same."""

UNITS: Final = {
    "relax_converged": "fraction of structures",
    "relax_same": "fraction of structures",
    "relax_rmsd": "Å",
    "relax_energy": "eV/atom",
    "relax_steps": "steps",
}
"""Of the numbers that `Relaxations.measure` returns."""


@dataclass(frozen=True)
class Relaxation:
    """One held-out relaxation.

    Attributes:
        start: Where it starts.
        minimum: Where the reference method ends.
    """

    start: Frame
    minimum: Frame


@dataclass(frozen=True)
class Relaxations:
    """Held-out relaxations and how to repeat them.

    Attributes:
        config: The section ``relaxation_metrics``.
        cases: What is relaxed.
    """

    config: RelaxationMetrics
    cases: Sequence[Relaxation]

    def due(self, epoch: int, last: int) -> bool:
        """Whether to relax after an epoch, counted from 1."""
        return epoch % self.config.every == 0 or epoch == last

    def measure(self, potential: Potential, *, rank: int = 0, world_size: int = 1) -> dict[str, float]:
        """Relax everything, each process its share, and compare with the reference.

        Args:
            potential: Is copied; neither it nor the random numbers of torch are touched.
            rank: This process.
            world_size: Number of processes, all of which must call.

        Returns:
            ``relax_converged``: fraction that came to rest within the allowed steps; ``relax_same``: fraction
            that did so within `SAME_MINIMUM` of the reference minimum; of those that came to rest, the mean
            ``relax_rmsd`` from it (Å), the mean ``relax_energy`` above its reference energy (eV per atom) and
            the mean number of ``relax_steps``.
        """
        from mlip.calculators.batch import BatchCalculator

        surface = BatchCalculator(copy.deepcopy(potential).requires_grad_(False).eval())
        total = torch.from_numpy(self.compare(surface, list(self.cases)[rank::world_size]))
        total = total.to(potential.device)
        if world_size > 1:
            dist.all_reduce(total)
        return means(total.tolist())

    def compare(self, surface: Surface, cases: Sequence[Relaxation]) -> Float64[np.ndarray, " 7"]:
        """Sums over `cases`, relaxed on `surface`, for `means`."""
        from mlip.search.batch_relax import relax_many

        starts = [_atoms(case.start) for case in cases]
        outcomes = relax_many(starts, surface, fmax=self.config.fmax, steps=self.config.steps)
        return sum((_sums(outcome, cases[outcome.place]) for outcome in outcomes), np.zeros(7))


def _sums(outcome: Outcome, case: Relaxation) -> np.ndarray:
    """Structures, arrivals, same minima, RMSD, steps, energies that are known, energy above them per atom."""
    if outcome.status != "converged" or outcome.result is None:
        return np.array([1.0, 0, 0, 0, 0, 0, 0])
    result, reference = outcome.result, case.minimum.energy
    apart = rmsd(result.atoms, _atoms(case.minimum))
    above = 0.0 if reference is None else (result.energy - reference) / len(case.minimum)
    return np.array([1.0, 1.0, apart <= SAME_MINIMUM, apart, result.steps, reference is not None, above])


def means(sums: Sequence[float]) -> dict[str, float]:
    """The numbers that `Relaxations.measure` returns, from sums over all structures."""
    count, arrived, same, apart, steps, known, above = sums
    found = {"relax_converged": arrived / count, "relax_same": same / count}
    if arrived:
        found |= {"relax_rmsd": apart / arrived, "relax_steps": steps / arrived}
    if known:
        found["relax_energy"] = above / known
    return found


def read_relaxations(config: RelaxationMetrics, data: Data) -> Relaxations:
    """The relaxations in a file: of each trajectory the first frame and the last; frames outside of
    trajectories are minima, which are to be kept.

    Args:
        config: The section ``relaxation_metrics``.
        data: The section ``data``, for the names of the labels and the format.

    Raises:
        InputError: The file is missing or unreadable, or a relaxation changes the atoms or the cell.
    """
    if not Path(config.file).is_file():
        raise InputError(f"file of `relaxation_metrics` {str(config.file)!r} does not exist")
    frames = read_frames(config.file, keys=LabelKeys(**data.keys.model_dump()), format=data.format)
    trajectories: dict[str, list[Frame]] = {}
    for i, frame in enumerate(frames):
        if not frame.is_isolated_atom:
            trajectories.setdefault(frame.trajectory or f"\0{i}", []).append(frame)
    cases = []
    for name, steps in trajectories.items():
        if all(frame.step >= 0 for frame in steps):
            steps = sorted(steps, key=lambda frame: frame.step)
        first, last = steps[0], steps[-1]
        if not np.array_equal(first.atomic_numbers, last.atomic_numbers):
            raise InputError(
                f"{config.file}: the trajectory {name!r} ends with other atoms than it starts with"
            )
        if not np.allclose(first.cell, last.cell, atol=1e-3):
            raise InputError(
                f"{config.file}: the trajectory {name!r} changes the cell; `relaxation_metrics` relaxes "
                "atoms in a fixed cell: leave it out"
            )
        cases.append(Relaxation(first, last))
    if not cases:
        raise InputError(f"{config.file}: holds no structure to relax")
    return Relaxations(config, cases)


def _atoms(frame: Frame) -> Atoms:
    from ase import Atoms

    return Atoms(numbers=frame.atomic_numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)


def describe(found: Mapping[str, float]) -> str:
    """What `Relaxations.measure` found, in a line."""
    parts = [
        f"{100 * found['relax_converged']:.0f} % converged, {100 * found['relax_same']:.0f} % to the minimum"
    ]
    if "relax_rmsd" in found:
        parts.append(f"RMSD {found['relax_rmsd']:.3g} Å, {found['relax_steps']:.0f} steps")
    if "relax_energy" in found:
        parts.append(f"energy {1000 * found['relax_energy']:+.3g} meV/atom above the reference")
    return ", ".join(parts)
