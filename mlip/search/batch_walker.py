"""A structure on its way to a minimum, as the optimisers of a batch see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.units import GPA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from jaxtyping import Bool, Float64

    from mlip.calculators.surface import Evaluation


_CLASS: Final = 1.3
"""Structures whose sizes differ by less than about this factor share one padded table."""


@dataclass(kw_only=True, eq=False)
class Walker:
    """One structure and what is known where it stands.

    Displacements and gradients are (atoms + 3, 3): a row for each atom, Å, and three for the cell: the
    symmetric strain ε times `scale`, Å, zero where the cell is kept. With the cell they are the coordinates
    of `ase.filters.FrechetCellFilter`, begun anew at each step: h' = h exp(ε), x' = (x + dx) exp(ε).

    Attributes:
        atoms: The structure now, without constraints.
        free: Whether each atom may move.
        scale: Number of atoms where the cell may change, else None.
        pressure: External pressure, eV/Å³.
        energy: Energy, eV; infinite where the structure could not be evaluated.
        objective: What is minimised, energy + pressure × volume, eV.
        gradient: Of the objective, eV/Å.
        memory: What the optimiser keeps.
    """

    atoms: Atoms
    free: Bool[np.ndarray, " atoms"]
    scale: float | None
    pressure: float = 0.0
    energy: float = np.inf
    objective: float = np.inf
    gradient: Float64[np.ndarray, "rows 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    memory: Any = None

    def look(self, evaluation: Evaluation | None) -> None:
        """Take note of an evaluation where the structure stands; None if there could be none."""
        if evaluation is None or not np.isfinite(evaluation.forces).all():
            self.energy = self.objective = np.inf
            return
        rows = np.zeros((len(self.atoms) + 3, 3))
        rows[:-3][self.free] = -evaluation.forces[self.free]
        self.energy = self.objective = evaluation.energy
        if self.scale is not None:
            assert evaluation.stress is not None
            volume = float(self.atoms.cell.volume)
            virial = evaluation.stress[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]] + self.pressure * np.eye(3)
            rows[-3:] = volume * virial / self.scale
            self.objective += self.pressure * volume
        self.gradient = rows

    @property
    def fmax(self) -> float:
        """Length of the longest row of the gradient, eV/Å; infinite where there is none."""
        if not np.isfinite(self.objective):
            return np.inf
        return float(np.einsum("ij,ij->i", self.gradient, self.gradient).max(initial=0.0)) ** 0.5

    def place(self, positions: Float64[np.ndarray, "atoms 3"], cell: Float64[np.ndarray, "3 3"]) -> None:
        """Stand somewhere else."""
        self.atoms.positions[:] = positions
        if self.scale is not None:
            self.atoms.set_cell(cell)


def pressure_of(gigapascal: float) -> float:
    """Pressure in eV/Å³."""
    return gigapascal * GPA


def displaced(
    positions: Float64[np.ndarray, "structures atoms 3"],
    cells: Float64[np.ndarray, "structures 3 3"],
    displacements: Float64[np.ndarray, "structures rows 3"],
    scales: Float64[np.ndarray, " structures"] | None,
) -> tuple[Float64[np.ndarray, "structures atoms 3"], Float64[np.ndarray, "structures 3 3"]]:
    """Positions and cells after displacements, as `Walker` has them.

    Args:
        positions: Å; padded.
        cells: Å.
        displacements: Rows of atoms, padded, and three of the cell, Å.
        scales: Of each structure; None where no cell changes.
    """
    moved = positions + displacements[:, :-3]
    if scales is None:
        return moved, cells
    strain = displacements[:, -3:] / scales[:, None, None]
    values, vectors = np.linalg.eigh(0.5 * (strain + strain.transpose(0, 2, 1)))
    stretch = vectors @ (np.exp(values)[:, :, None] * vectors.transpose(0, 2, 1))
    return moved @ stretch, cells @ stretch


def by_size(walkers: Sequence[Walker]) -> list[list[Walker]]:
    """Groups of walkers of about the same size, those with and without a changing cell apart."""
    groups: dict[tuple[int, bool], list[Walker]] = {}
    for walker in walkers:
        size = round(float(np.log(len(walker.atoms)) / np.log(_CLASS)))
        groups.setdefault((size, walker.scale is not None), []).append(walker)
    return list(groups.values())
