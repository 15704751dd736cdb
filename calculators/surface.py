"""`Surface`: energies, forces and Hessians of many structures at once, whoever computes them.

Searches for minima, saddles and paths take a `Surface`, so that the same search runs on a potential, where
all structures of a step are one batch, and on any other ASE calculator, one structure after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What is known of one structure.

    Attributes:
        energy: eV.
        forces: eV/Å.
        stress: eV/Å³, Voigt order xx yy zz yz xz xy, tension positive; None unless asked for.
        hessian: Second derivatives of the energy, eV/Å², symmetric; None unless asked for.
        hessian_method: How the Hessian was made: "direct", "autograd" or "finite-difference".
        novelty: How unlike the atoms of the training each atom is, 1 at the boundary (`mlip.domain`); None
            where the potential does not know.
    """

    energy: float
    forces: Float64[np.ndarray, "atoms 3"]
    stress: Float64[np.ndarray, " 6"] | None = None
    hessian: Float64[np.ndarray, "coordinates coordinates"] | None = None
    hessian_method: str | None = None
    novelty: Float64[np.ndarray, " atoms"] | None = None


class StructureError(InputError):
    """One structure of several cannot be evaluated."""

    def __init__(self, message: str, *, place: int) -> None:
        """Of the structure at `place`."""
        super().__init__(message)
        self.place = place


class Surface(Protocol):
    """A potential energy surface."""

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        """Evaluate every structure; constraints and attached calculators are not looked at.

        Raises:
            StructureError: A structure cannot be evaluated; holds its place in `structures`.
        """
        ...


DISPLACEMENT: Final = 0.005
"""Å; of the central differences of forces that make a Hessian where a calculator has none."""


class ASESurface:
    """Any ASE calculator as a `Surface`, one structure after another."""

    def __init__(self, calculator: BaseCalculator) -> None:
        """Use `calculator`; it is not copied."""
        self.calculator = calculator

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        """See `Surface.evaluate`; Hessians by central differences of the forces, symmetrised."""
        results = []
        for place, atoms in enumerate(structures):
            try:
                results.append(self._one(atoms, stress, hessian))
            except Exception as error:  # each calculator fails in its own way
                own = isinstance(error, InputError)
                reason = str(error) if own else f"{type(error).__name__}: {error}"
                raise StructureError(" ".join(reason.split()), place=place) from error
        return results

    def _one(self, atoms: Atoms, stress: bool, hessian: bool) -> Evaluation:
        atoms = _bare(atoms)
        atoms.calc = self.calculator
        return Evaluation(
            energy=float(atoms.get_potential_energy()),
            forces=np.array(atoms.get_forces(), dtype=np.float64),
            stress=np.array(atoms.get_stress(), dtype=np.float64) if stress else None,
            hessian=finite_difference_hessian(atoms) if hessian else None,
            hessian_method="finite-difference" if hessian else None,
        )


def finite_difference_hessian(
    atoms: Atoms, *, displacement: float = DISPLACEMENT
) -> Float64[np.ndarray, "coordinates coordinates"]:
    """Central differences of the forces of `atoms`' calculator, symmetrised, eV/Å².

    Args:
        atoms: Has a calculator; not changed, constraints are not looked at.
        displacement: Å.
    """
    moved = _bare(atoms)
    moved.calc = atoms.calc
    size = 3 * len(moved)
    hessian = np.empty((size, size))
    start = atoms.positions.copy()
    for row in range(size):
        forces = []
        for sign in (1.0, -1.0):
            positions = start.copy()
            positions.flat[row] += sign * displacement
            moved.positions = positions
            forces.append(np.array(moved.get_forces(), dtype=np.float64).ravel())
        hessian[row] = (forces[1] - forces[0]) / (2.0 * displacement)
    return 0.5 * (hessian + hessian.T)


def _bare(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.set_constraint()
    return copy


def as_surface(calculator: BaseCalculator | Surface) -> Surface:
    """`calculator` itself if it is a `Surface`; a potential's batched one for an `MLIPCalculator`; else an
    `ASESurface`."""
    from mlip.calculators.ase_calculator import MLIPCalculator
    from mlip.calculators.batch import BatchCalculator

    if isinstance(calculator, MLIPCalculator):
        return BatchCalculator(calculator.potential)
    if hasattr(calculator, "evaluate"):
        return cast("Surface", calculator)
    return ASESurface(calculator)
