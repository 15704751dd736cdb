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
from mlip.neighbors import neighbor_list
from mlip.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from ase.optimize.optimize import Optimizer

OPTIMIZERS: Final = {
    "internal": ("mlip.search.batch_internal", "InternalOptimizer"),
    "bfgs": ("ase.optimize.bfgs", "BFGS"),
    "lbfgs": ("ase.optimize.lbfgs", "LBFGS"),
    "bfgs-line-search": ("ase.optimize.bfgslinesearch", "BFGSLineSearch"),
    "fire": ("ase.optimize.fire", "FIRE"),
    "rfo": ("mlip.search.rfo", "RFO"),
}
"""Name: module and class. The first is our own, the others are optimisers as ASE has them; "auto" picks one
by size and constraints."""

TRAJECTORY_SUFFIXES: Final = (".traj", ".xyz", ".extxyz")

LARGEST_INTERNAL: Final = 200
"""Atoms up to which "auto" works in internal coordinates, whose steps cost the cube of the size; above it is
L-BFGS."""

CLOSEST: Final = 0.4
"""Å; atoms closer than this at the start are a mistake in the input (H2 has 0.74 Å)."""


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
        atoms: The relaxed structure, or where it ran away the lowest place before (with the optimisers of ASE
            the last); its `calc` holds the energy, forces and, where there is one, stress found there.
        converged: Whether `fmax` fell to the demanded value within the allowed steps.
        steps: Steps taken.
        initial_energy: Energy at the start, eV.
        energy: Energy at the end, eV, without the pressure-volume term.
        fmax: Largest force on an atom that may move, eV/Å; with a cell that may change, also the largest row
            of the cell's generalised force (`ase.filters.FrechetCellFilter`), eV.
        optimizer: Name of the optimiser used, a key of `OPTIMIZERS`.
        pressure_gpa: Pressure at the end, GPa, −tr(σ)/3; None where the cell was kept.
        seconds: Wall time.
        message: How it ran away, which is to places that cannot be evaluated; empty if it did not.
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
    message: str = ""


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

    One that runs away is no error: the result holds the last good place, is not converged and says why.

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
        InputError: An argument is not as above, or the structure cannot be used or not be evaluated.
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
        optimizer = _choose(atoms)
    with _frame_writer(trajectory) as write_frame:

        def observe(step: RelaxStep, at: Atoms) -> None:
            write_frame(at)
            if callback is not None:
                callback(step)

        pressure = pressure_gpa if cell else None
        if optimizer == "internal":
            return _by_itself(atoms, calculator, fmax, steps, pressure, observe)
        return _by_ase(atoms, calculator, optimizer, fmax, steps, pressure, observe)


def ran_away(step: int, reason: str) -> str:
    """Message of a relaxation that came to places which cannot be evaluated."""
    return f"ran away in step {step}: {reason} (the model may not describe this structure)"


def _by_itself(
    atoms: Atoms,
    calculator: BaseCalculator,
    fmax: float,
    steps: int,
    pressure_gpa: float | None,
    observe: Callable[[RelaxStep, Atoms], None],
) -> RelaxResult:
    """Relax in internal coordinates: a batch of one structure; keeps the cell if the pressure is None.

    Raises:
        InputError: The structure cannot be evaluated at the start.
    """
    from mlip.calculators.surface import ASESurface
    from mlip.search.batch_relax import Batch

    batch = Batch(
        ASESurface(calculator),
        fmax=fmax,
        steps=steps,
        optimizer="internal",
        cell=pressure_gpa is not None,
        pressure_gpa=pressure_gpa or 0.0,
        observe=lambda _, step, at: observe(step, at),
    )
    batch.enter(0, atoms)
    while True:
        for outcome in batch.advance():
            if outcome.result is None:
                raise InputError(outcome.message)
            return outcome.result


def _by_ase(
    atoms: Atoms,
    calculator: BaseCalculator,
    optimizer: str,
    fmax: float,
    steps: int,
    pressure_gpa: float | None,
    observe: Callable[[RelaxStep, Atoms], None],
) -> RelaxResult:
    """Relax with an optimiser of ASE; keeps the cell if the pressure is None.

    Raises:
        InputError: The structure cannot be evaluated at the start.
    """
    started = time.perf_counter()
    seen: list[RelaxStep] = []
    final, message = atoms, ""

    def note(step: RelaxStep, at: Atoms) -> None:
        nonlocal final
        final = _freeze(at)
        seen.append(step)
        observe(step, at)

    moving = atoms.copy()
    moving.calc = calculator
    try:
        _minimise(moving, optimizer, fmax, steps, pressure_gpa, note)
    except InputError as error:
        if not seen:  # the structure itself is at fault
            raise
        message = ran_away(seen[-1].step + 1, str(error))
    last = seen[-1]
    return RelaxResult(
        atoms=final,
        converged=last.fmax <= fmax and not message,
        steps=last.step,
        initial_energy=seen[0].energy,
        energy=last.energy,
        fmax=last.fmax,
        optimizer=optimizer,
        pressure_gpa=None if pressure_gpa is None else -float(final.get_stress()[:3].mean()) / GPA,
        seconds=time.perf_counter() - started,
        message=message,
    )


def _minimise(
    atoms: Atoms,
    optimizer: str,
    fmax: float,
    steps: int,
    pressure_gpa: float | None,
    observe: Callable[[RelaxStep, Atoms], None],
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
            RelaxStep(step=driver.nsteps, energy=float(atoms.get_potential_energy()), fmax=_largest(target)),
            atoms,
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
    check_options(fmax=fmax, steps=steps, optimizer=optimizer, cell=cell, pressure_gpa=pressure_gpa)
    check_structure(atoms, cell=cell)
    if trajectory is not None:
        if Path(trajectory).suffix not in TRAJECTORY_SUFFIXES:
            raise InputError(
                f"the trajectory {trajectory} has an unknown ending: use {', '.join(TRAJECTORY_SUFFIXES)}"
            )
        folder = Path(trajectory).absolute().parent
        if not folder.is_dir():
            raise InputError(f"the folder of the trajectory, {folder}, does not exist: create it first")


def check_options(*, fmax: float, steps: int, optimizer: str, cell: bool, pressure_gpa: float) -> None:
    """See whether these options make sense, whatever the structure.

    Raises:
        InputError: They do not.
    """
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


def check_structure(atoms: Atoms, *, cell: bool) -> None:
    """See whether a structure can be relaxed, whatever the potential.

    Raises:
        InputError: It has no atoms, or some that lie on top of each other, or no cell that could be relaxed.
    """
    if len(atoms) == 0:
        raise InputError("the structure has no atoms: at least one is needed")
    if cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InputError(
            "the cell is to be relaxed, but the structure is not periodic in three directions: "
            "leave --cell (`cell=True`) out, or give it a cell and pbc"
        )
    positions, cells = atoms.positions, atoms.cell.array
    senders, receivers, shifts = neighbor_list(positions, cells, atoms.pbc, CLOSEST)
    if len(senders):
        apart = np.linalg.norm(positions[senders] - positions[receivers] + shifts @ cells, axis=1)
        worst = int(apart.argmin())
        one, other = sorted((int(receivers[worst]), int(senders[worst])))
        raise InputError(
            f"atoms {one} ({atoms.symbols[one]}) and {other} ({atoms.symbols[other]}) are "
            f"{apart[worst]:.4f} Å apart at the start, but must be at least {CLOSEST} Å apart: "
            "remove one of them or mend the geometry"
        )


def fixed_atoms(atoms: Atoms) -> list[int] | None:
    """Indices of the atoms that `FixAtoms` holds; None if there are constraints of other kinds."""
    from ase.constraints import FixAtoms

    if not all(isinstance(constraint, FixAtoms) for constraint in atoms.constraints):
        return None
    return sorted({int(index) for constraint in atoms.constraints for index in constraint.get_indices()})


def _choose(atoms: Atoms) -> str:
    """What "auto" is."""
    if len(atoms) > LARGEST_INTERNAL:
        return "lbfgs"
    return "bfgs" if fixed_atoms(atoms) is None else "internal"


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
