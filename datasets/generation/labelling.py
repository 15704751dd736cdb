"""Energies and forces of one fixed set of atoms: GFN2-xTB by tblite, or any ASE calculator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlip.datasets.generation.topology import Array, Indices
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

SCF_ACCURACY = 0.1
"""On tblite's scale, where 1 is its default; forces then agree with tighter settings to 1e-4 eV/Å."""


_LARGEST = 86  # radon, the last element that GFN2-xTB has parameters for


class LabelError(RuntimeError):
    """No label for this geometry: the self-consistent field did not converge, or numbers are not finite."""


class Labeller(Protocol):
    """Energy (eV) and forces (N, 3) (eV/Å) at positions (Å); `near` says that the last ones were close by.

    Raises:
        LabelError: There is no label for this geometry.
    """

    def __call__(self, positions: Array, *, near: bool = False) -> tuple[float, Array]: ...


@dataclass(frozen=True, eq=False)
class Particles:
    """What a labeller needs to know beside positions: atomic numbers, net charge, multiplicity 2S + 1."""

    numbers: Indices
    charge: int = 0
    spin: int = 1


MakeLabeller = Callable[[Particles], Labeller]
"""Has to survive pickling where several processes are used: a class or a function of a module."""


class TBLite:
    """GFN2-xTB, at tblite's electronic temperature of 300 K.

    The energy contains the entropy term, as the forces demand. `near` starts from the last call's charges.

    Source: Bannwarth, Ehlert and Grimme 2019, doi:10.1021/acs.jctc.8b01176.
    """

    level_of_theory = "GFN2-xTB"

    def __init__(self, particles: Particles) -> None:
        try:
            from tblite.interface import Calculator
        except ModuleNotFoundError:
            raise InputError('labels by GFN2-xTB need tblite: pip install "polyad[labels]"') from None
        numbers = particles.numbers
        if numbers.max() > _LARGEST:
            raise InputError(f"GFN2-xTB knows the elements up to Z = {_LARGEST}, not Z = {numbers.max()}")
        spread = np.arange(3.0 * len(numbers)).reshape(-1, 3)  # replaced at the first call
        charge, unpaired = float(particles.charge), particles.spin - 1
        self._calculator = Calculator("GFN2-xTB", numbers, spread, charge=charge, uhf=unpaired)
        self._calculator.set("verbosity", 0)
        self._calculator.set("accuracy", SCF_ACCURACY)
        self._previous: Any = None

    def __call__(self, positions: Array, *, near: bool = False) -> tuple[float, Array]:
        from ase.units import Bohr, Hartree

        self._calculator.update(positions=positions / Bohr)
        try:
            result = self._calculator.singlepoint(self._previous if near else None)
        except RuntimeError as error:
            self._previous = None
            raise LabelError("self-consistent field not converged") from error
        energy = float(result.get("energy")) * Hartree
        forces = -np.asarray(result.get("gradient")) * (Hartree / Bohr)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            self._previous = None
            raise LabelError("numbers that are not finite")
        self._previous = result
        return energy, forces


class ASELabels:
    """Any ASE calculator as a labeller; what it refuses, as our models a charge or spin, has no label."""

    def __init__(self, particles: Particles, calculator: BaseCalculator) -> None:
        from ase import Atoms

        self._atoms = Atoms(numbers=particles.numbers, positions=np.zeros((len(particles.numbers), 3)))
        self._atoms.info.update(charge=particles.charge, spin=particles.spin)
        self._atoms.calc = calculator

    def __call__(self, positions: Array, *, near: bool = False) -> tuple[float, Array]:
        from ase.calculators.calculator import CalculatorError

        self._atoms.positions = positions
        try:
            energy = float(self._atoms.get_potential_energy())
            forces = np.array(self._atoms.get_forces(), dtype=np.float64)
        except (CalculatorError, InputError) as error:
            raise LabelError(str(error)) from error
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise LabelError("numbers that are not finite")
        return energy, forces


def hessian(label: Labeller, positions: Array, *, step: float = 0.005) -> Array:
    """(3N, 3N) second derivatives, eV/Å², by central differences of the forces, symmetrised.

    Raises:
        LabelError: A displaced geometry has no label.
    """
    rows = np.empty((positions.size, positions.size))
    for k in range(positions.size):
        shift = np.zeros(positions.size)
        shift[k] = step
        up = label(positions + shift.reshape(-1, 3), near=True)[1]
        rows[k] = ((label(positions - shift.reshape(-1, 3), near=True)[1] - up) / (2 * step)).ravel()
    return 0.5 * (rows + rows.T)
