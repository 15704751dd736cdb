"""Relaxation of molecules and crystals to the nearest minimum."""

from __future__ import annotations

import importlib
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.errors import InputError
from mlip.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from ase.optimize.optimize import Optimizer

OPTIMIZERS: Final = {
    "bfgs": ("ase.optimize.bfgs", "BFGS"),
    "lbfgs": ("ase.optimize.lbfgs", "LBFGS"),
    "bfgs-line-search": ("ase.optimize.bfgslinesearch", "BFGSLineSearch"),
    "fire": ("ase.optimize.fire", "FIRE"),
    "rfo": ("mlip.search.rfo", "RFO"),
}
"""Name: module and class of the ASE optimiser. "auto" picks one by size."""

TRAJECTORY_SUFFIXES: Final = (".traj", ".xyz", ".extxyz")

LARGEST_FOR_BFGS: Final = 150
"""Atoms up to which "auto" is BFGS, which diagonalises a 3N × 3N Hessian at each step; above it is LBFGS."""


@dataclass(frozen=True, kw_only=True)
class RelaxStep:
    """What a callback sees after each step: its number (0 is the start), energy in eV, largest force in
    eV/Å."""

    step: int
    energy: float
    fmax: float


@dataclass(frozen=True, kw_only=True)
class RelaxResult:
    """The end of a relaxation.

    Attributes:
        atoms: The relaxed structure; its `calc` holds the final energy, forces and, where there is one,
            stress.
        converged: Whether `fmax` fell to the demanded value within the allowed steps.
        steps: Steps taken.
        initial_energy: Energy at the start, eV.
        energy: Energy at the end, eV, without the pressure-volume term.
        fmax: Largest force on an atom that may move, eV/Å; with a cell that may change, also the largest row
            of the cell's generalised force (`ase.filters.FrechetCellFilter`), eV.
        optimizer: Name of the optimiser used, a key of `OPTIMIZERS`.
        pressure_gpa: Pressure at the end, GPa, −tr(σ)/3; None where the cell was kept.
        seconds: Wall time.
    """

    atoms: Atoms
    converged: bool
    steps: int
    initial_energy: float
    energy: float
    fmax: float
    optimizer: str
    pressure_gpa: float | None
    seconds: float


def relax(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    optimizer: str = "auto",
    cell: bool = False,
    pressure_gpa: float = 0.0,
    trajectory: str | Path | None = None,
    callback: Callable[[RelaxStep], None] | None = None,
) -> RelaxResult:
    """Relax a copy of `atoms`, honouring its constraints.

    Args:
        atoms: Where to start; not changed.
        calculator: Any ASE calculator with energy and forces (and stress for `cell`).
        fmax: Converged when the largest force is at most this, eV/Å.
        steps: Give up after this many steps.
        optimizer: A key of `OPTIMIZERS`, or "auto".
        cell: Relax the cell too.
        pressure_gpa: External pressure, GPa; only with `cell`.
        trajectory: File for the path: ASE's own format if it ends in `.traj`, else extended XYZ. It is
            written under a temporary name and takes its own at the end, also when the relaxation fails.
        callback: Called at the start and after each step.

    Raises:
        InputError: An argument is not as above, or the structure cannot be used.
    """
    check_relaxation(
        atoms,
        fmax=fmax,
        steps=steps,
        optimizer=optimizer,
        cell=cell,
        pressure_gpa=pressure_gpa,
        trajectory=trajectory,
    )
    if optimizer == "auto":
        optimizer = "bfgs" if len(atoms) <= LARGEST_FOR_BFGS else "lbfgs"
    started = time.perf_counter()
    atoms = atoms.copy()
    atoms.calc = calculator
    seen: list[RelaxStep] = []
    with _frame_writer(trajectory) as write_frame:

        def observe(step: RelaxStep) -> None:
            seen.append(step)
            write_frame(atoms)
            if callback is not None:
                callback(step)

        try:
            _minimise(atoms, optimizer, fmax, steps, pressure_gpa if cell else None, observe)
        except InputError as error:
            if not seen:  # the structure itself is at fault
                raise
            raise InputError(
                f"the relaxation ran away in step {seen[-1].step + 1}: {error} "
                "(the model may not describe this structure; --trajectory shows the path)"
            ) from error
    final, last = _freeze(atoms), seen[-1]
    return RelaxResult(
        atoms=final,
        converged=last.fmax <= fmax,
        steps=last.step,
        initial_energy=seen[0].energy,
        energy=last.energy,
        fmax=last.fmax,
        optimizer=optimizer,
        pressure_gpa=-float(final.get_stress()[:3].mean()) / GPA if cell else None,
        seconds=time.perf_counter() - started,
    )


def _minimise(
    atoms: Atoms,
    optimizer: str,
    fmax: float,
    steps: int,
    pressure_gpa: float | None,
    observe: Callable[[RelaxStep], None],
) -> None:
    """Run the optimiser on `atoms`, in place, and on the cell too unless the pressure is None."""
    target: Any = atoms  # an Atoms, or a filter that looks like one
    if pressure_gpa is not None:
        from ase.filters import FrechetCellFilter

        target = FrechetCellFilter(atoms, scalar_pressure=pressure_gpa * GPA)
    module, class_name = OPTIMIZERS[optimizer]
    optimizer_class: type[Optimizer] = getattr(importlib.import_module(module), class_name)
    driver = optimizer_class(target, logfile=None)
    driver.attach(
        lambda: observe(
            RelaxStep(step=driver.nsteps, energy=float(atoms.get_potential_energy()), fmax=_largest(target))
        )
    )
    driver.run(fmax=fmax, steps=steps)


def check_relaxation(
    atoms: Atoms,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    optimizer: str = "auto",
    cell: bool = False,
    pressure_gpa: float = 0.0,
    trajectory: str | Path | None = None,
) -> None:
    """See, without computing anything, whether `relax` accepts its arguments.

    Raises:
        InputError: It does not.
    """
    if len(atoms) == 0:
        raise InputError("the structure has no atoms: at least one is needed")
    if not (fmax > 0.0 and math.isfinite(fmax)):
        raise InputError(f"`fmax` is {fmax} but must be a positive force in eV/Å")
    if steps < 0:
        raise InputError(f"`steps` is {steps} but must be 0 or more")
    if optimizer not in ("auto", *OPTIMIZERS):
        raise InputError(f'`optimizer` is "{optimizer}" but must be one of: auto, {", ".join(OPTIMIZERS)}')
    if not math.isfinite(pressure_gpa):
        raise InputError(f"`pressure_gpa` is {pressure_gpa} but must be a number, GPa")
    if pressure_gpa != 0.0 and not cell:
        raise InputError(
            f"a pressure of {pressure_gpa} GPa acts on the cell, which is kept: "
            "relax the cell too (--cell, `cell=True`)"
        )
    if cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InputError(
            "the cell is to be relaxed, but the structure is not periodic in three directions: "
            "leave --cell (`cell=True`) out, or give it a cell and pbc"
        )
    if trajectory is not None:
        if Path(trajectory).suffix not in TRAJECTORY_SUFFIXES:
            raise InputError(
                f"the trajectory {trajectory} has an unknown ending: use {', '.join(TRAJECTORY_SUFFIXES)}"
            )
        folder = Path(trajectory).absolute().parent
        if not folder.is_dir():
            raise InputError(f"the folder of the trajectory, {folder}, does not exist: create it first")


def _largest(target: Any) -> float:
    """Length of the longest row of the forces that the optimiser sees, constraints applied."""
    forces = np.asarray(target.get_forces(), dtype=np.float64)
    return float(np.einsum("ij,ij->i", forces, forces).max(initial=0.0)) ** 0.5


def _freeze(atoms: Atoms) -> Atoms:
    """A copy whose calculator only holds the numbers last computed."""
    from ase.calculators.singlepoint import SinglePointCalculator

    results = dict(atoms.calc.results)
    frozen: Atoms = atoms.copy()
    frozen.calc = SinglePointCalculator(frozen, **{key: results[key] for key in _KEPT if key in results})
    return frozen


_KEPT: Final = ("energy", "free_energy", "energies", "forces", "stress")


@contextmanager
def _frame_writer(path: str | Path | None) -> Iterator[Callable[[Atoms], None]]:
    """A function that appends a frame to a file which gets its name only at the end; nothing is written
    without a path."""
    if path is None:
        yield lambda atoms: None
        return
    path = Path(path)
    temporary = path.with_name(f".{time.time_ns():x}-{path.name}")
    if path.suffix == ".traj":
        from ase.io.trajectory import TrajectoryWriter

        writer: Any = TrajectoryWriter(str(temporary), mode="w")
        append, close = (lambda atoms: writer.write(_freeze(atoms))), writer.close
    else:
        from ase.io.extxyz import write_xyz

        stream = temporary.open("w", encoding="utf-8")
        append, close = (lambda atoms: write_xyz(stream, [_freeze(atoms)])), stream.close
    try:
        yield append
    finally:
        close()
        if temporary.stat().st_size > 0:
            temporary.replace(path)
        else:
            temporary.unlink()
