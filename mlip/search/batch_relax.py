"""Relaxation of many structures at once: those that have arrived leave the batch, new ones enter."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.batch import BatchCalculator
from mlip.calculators.surface import StructureError, as_surface
from mlip.errors import InputError
from mlip.search.batch_walker import Walker, pressure_of
from mlip.search.relax import (
    LARGEST_INTERNAL,
    RelaxResult,
    RelaxStep,
    check_options,
    check_structure,
    fixed_atoms,
    ran_away,
)
from mlip.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64

    from mlip.calculators.surface import Evaluation, Surface

BATCH_OPTIMIZERS: Final = {
    "internal": ("mlip.search.batch_internal", "InternalOptimizer"),
    "lbfgs": ("mlip.search.batch_first_order", "Lbfgs"),
    "fire": ("mlip.search.batch_first_order", "Fire"),
}
"""Name: module and class. "auto" is the first, and L-BFGS for structures of more than `LARGEST_INTERNAL`
atoms."""

BATCH_ATOMS: Final = 1024
"""Atoms that are on their way at the same time."""

DRAFT_FMAX: Final = 0.01
"""eV/Å, or the demanded force if that is larger: from here on everything is computed in full precision, where
the way before was in single precision."""

GIVE_UP: Final = 10
"""Places in a row that cannot be evaluated, after which a structure is given up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of one structure.

    Attributes:
        place: Which one it was, counted from 0.
        status: "converged", "not converged" (steps used up) or "failed".
        message: Why it failed; empty otherwise.
        result: Where it converged, else the lowest place that could be evaluated; None where there is none.
        novelty: Of the atom there that is most unlike those of the training, 1 at the boundary; None where
            the surface does not know.
    """

    place: int
    status: str
    message: str
    result: RelaxResult | None
    novelty: float | None


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a structure has been."""

    positions: Float64[np.ndarray, "atoms 3"]
    cell: Float64[np.ndarray, "3 3"]
    objective: float
    fmax: float
    evaluation: Evaluation


@dataclass(kw_only=True, eq=False)
class _Journey:
    """A structure in the batch."""

    place: int
    start: Atoms
    walker: Walker
    optimizer: str
    exact: bool = True
    """Whether it is looked at in full precision next."""
    steps: int = 0
    lost: int = 0
    message: str = ""
    ending: str = ""
    """The status with which it leaves after one last look."""
    initial_energy: float = np.nan
    lowest: _Place | None = None
    seconds: float = 0.0


class Batch:
    """The structures that are on their way, on one surface."""

    def __init__(
        self,
        surface: Surface,
        *,
        fmax: float,
        steps: int,
        optimizer: str,
        cell: bool,
        pressure_gpa: float,
        observe: Callable[[int, RelaxStep, Atoms], None] | None = None,
    ) -> None:
        """See `relax_many`."""
        self.surface = surface
        self.draft = surface.draft() if isinstance(surface, BatchCalculator) else None
        self.fmax, self.steps, self.optimizer, self.cell = fmax, steps, optimizer, cell
        self.pressure_gpa = pressure_gpa
        self.observe = observe
        self.journeys: list[_Journey] = []
        self.atoms = 0
        """Atoms on their way."""
        self._optimizers: dict[str, Any] = {}

    def enter(self, place: int, atoms: Atoms) -> None:
        """Take a structure in.

        Raises:
            InputError: It cannot be relaxed like this.
        """
        check_structure(atoms, cell=self.cell)
        fixed = fixed_atoms(atoms)
        if fixed is None:
            kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
            raise InputError(
                f"the structure has constraints ({kinds}) of which batches honour FixAtoms alone: "
                "remove the others, or relax it by itself with `relax` and an optimiser of ASE (bfgs)"
            )
        free = np.ones(len(atoms), dtype=bool)
        free[fixed] = False
        self.atoms += len(atoms)
        moving = atoms.copy()
        moving.set_constraint()
        walker = Walker(
            atoms=moving,
            free=free,
            scale=float(len(atoms)) if self.cell else None,
            pressure=pressure_of(self.pressure_gpa),
        )
        self.journeys.append(
            _Journey(
                place=place,
                start=atoms,
                walker=walker,
                optimizer=self._choose(len(atoms)),
            )
        )

    def _choose(self, atoms: int) -> str:
        if self.optimizer != "auto":
            return self.optimizer
        return "internal" if atoms <= LARGEST_INTERNAL else "lbfgs"

    def advance(self) -> list[Outcome]:
        """Evaluate all structures where they are, let those leave that have arrived, and move the rest."""
        started = time.perf_counter()
        self._evaluate()
        leaving: list[tuple[_Journey, str]] = []
        staying, going = [], []
        for journey in self.journeys:
            status = self._status(journey)
            if status == "going":
                journey.steps += 1
                if journey.steps == 1:
                    journey.exact = self.draft is None
                going.append(journey)
            elif journey.exact:
                leaving.append((journey, status))
                continue
            else:
                self._ask_exactly(journey, status)
            staying.append(journey)
        for name in {journey.optimizer for journey in going}:
            self._optimizer(name).advance([j.walker for j in going if j.optimizer == name])
        share = (time.perf_counter() - started) / max(self.atoms, 1)
        for journey in self.journeys:
            journey.seconds += share * len(journey.start)
        self.journeys = staying
        self.atoms = sum(len(journey.start) for journey in staying)
        return [self._finish(journey, status) for journey, status in leaving]

    def _optimizer(self, name: str) -> Any:
        if name not in self._optimizers:
            module, class_name = BATCH_OPTIMIZERS[name]
            self._optimizers[name] = getattr(importlib.import_module(module), class_name)()
        return self._optimizers[name]

    def _ask_exactly(self, journey: _Journey, status: str) -> None:
        """What single precision says is confirmed before a structure leaves: once more, where it is, or if it
        has not arrived where it was lowest."""
        journey.exact = True
        if status != "converged":
            journey.ending = status
            assert journey.lowest is not None
            journey.walker.place(journey.lowest.positions, journey.lowest.cell)

    def _evaluate(self) -> None:
        """Look at every structure."""
        self._look([journey for journey in self.journeys if journey.exact], self.surface)
        if self.draft is not None:
            self._look([journey for journey in self.journeys if not journey.exact], self.draft)

    def _look(self, asked: list[_Journey], surface: Surface) -> None:
        """Evaluate some of them; those for which that cannot be done do not hold up the others."""
        found: list[Evaluation] = []
        while asked:
            try:
                found = surface.evaluate([j.walker.atoms for j in asked], stress=self.cell)
                break
            except StructureError as error:
                failed = asked[error.place]
                asked = [journey for journey in asked if journey is not failed]
                failed.message = str(error)
                failed.walker.look(None)
        for journey, evaluation in zip(asked, found, strict=True):
            walker = journey.walker
            walker.look(evaluation)
            if not np.isfinite(walker.objective):
                journey.message = "the energy or the forces are not finite"
                continue
            if journey.lowest is None:
                journey.initial_energy = walker.energy
            here = _Place(
                walker.atoms.positions.copy(),
                walker.atoms.cell.array.copy(),
                walker.objective,
                walker.fmax,
                evaluation,
            )
            lower = journey.lowest is None or here.objective <= journey.lowest.objective
            if lower or journey.ending or walker.fmax <= self.fmax:
                journey.lowest = here
            if self.observe is not None:
                step = RelaxStep(step=journey.steps, energy=walker.energy, fmax=walker.fmax)
                self.observe(journey.place, step, frozen(journey.start, here))

    def _status(self, journey: _Journey) -> str:
        """ "going", or with what status it is to leave."""
        if np.isfinite(journey.walker.objective):
            journey.lost = 0
            if journey.walker.fmax <= (self.fmax if journey.exact else max(self.fmax, DRAFT_FMAX)):
                return "converged"
            if journey.ending:
                return journey.ending
            return "going" if journey.steps < self.steps else "not converged"
        journey.lost += 1
        if journey.lowest is not None:
            if journey.lost < GIVE_UP and journey.steps < self.steps and not journey.ending:
                return "going"
            journey.message = ran_away(journey.steps, journey.message)
        return "failed"

    def _finish(self, journey: _Journey, status: str) -> Outcome:
        lowest = journey.lowest
        result, novelty = None, None
        message = journey.message if status == "failed" else ""
        if lowest is not None:
            evaluation = lowest.evaluation
            stress = evaluation.stress
            result = RelaxResult(
                atoms=frozen(journey.start, lowest),
                converged=status == "converged",
                steps=journey.steps,
                initial_energy=journey.initial_energy,
                energy=evaluation.energy,
                fmax=lowest.fmax,
                optimizer=journey.optimizer,
                pressure_gpa=None if stress is None else -float(stress[:3].mean()) / GPA,
                seconds=journey.seconds,
                message=message,
            )
            if evaluation.novelty is not None:
                novelty = float(evaluation.novelty.max())
        return Outcome(place=journey.place, status=status, message=message, result=result, novelty=novelty)


def frozen(start: Atoms, place: _Place) -> Atoms:
    """The structure at a place of its way, with a calculator that only holds the numbers found there."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms: Atoms = start.copy()
    atoms.set_cell(place.cell)
    atoms.positions[:] = place.positions
    found = place.evaluation
    results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
    if found.stress is not None:
        results["stress"] = found.stress
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def relax_many(
    structures: Iterable[Atoms],
    calculator: BaseCalculator | Surface,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    optimizer: str = "auto",
    cell: bool = False,
    pressure_gpa: float = 0.0,
    batch_atoms: int = BATCH_ATOMS,
) -> Iterator[Outcome]:
    """Relax many structures in one batch; results come as they are ready, not in order.

    A structure that cannot be read, evaluated or brought to rest has its outcome and does not stop the rest.

    Args:
        structures: Where to start; not changed. Taken as there is room; `FixAtoms` is honoured.
        calculator: A surface, best a `BatchCalculator`, or any ASE calculator (then one after another).
        fmax: Converged when the largest force is at most this, eV/Å; with `cell` as `RelaxResult.fmax`.
        steps: Give up after this many.
        optimizer: A key of `BATCH_OPTIMIZERS`, or "auto".
        cell: Relax the cells too.
        pressure_gpa: External pressure, GPa; only with `cell`.
        batch_atoms: Atoms that are on their way at the same time; one structure always is.

    Raises:
        InputError: An option is not as above.
    """
    check_batch(optimizer=optimizer, fmax=fmax, steps=steps, cell=cell, pressure_gpa=pressure_gpa)
    if batch_atoms < 1:
        raise InputError(f"`batch_atoms` is {batch_atoms} but must be at least 1")
    batch = Batch(
        as_surface(calculator),
        fmax=fmax,
        steps=steps,
        optimizer=optimizer,
        cell=cell,
        pressure_gpa=pressure_gpa,
    )
    return _run(batch, iter(enumerate(structures)), batch_atoms)


def check_batch(*, optimizer: str, fmax: float, steps: int, cell: bool, pressure_gpa: float) -> None:
    """See whether `relax_many` accepts its options.

    Raises:
        InputError: It does not.
    """
    if optimizer not in ("auto", *BATCH_OPTIMIZERS):
        raise InputError(
            f'`optimizer` is "{optimizer}" but in batches must be one of: auto, {", ".join(BATCH_OPTIMIZERS)}'
        )
    check_options(fmax=fmax, steps=steps, optimizer=optimizer, cell=cell, pressure_gpa=pressure_gpa)


def _run(batch: Batch, waiting: Iterator[tuple[int, Atoms]], batch_atoms: int) -> Iterator[Outcome]:
    following = next(waiting, None)
    while following is not None or batch.journeys:
        while following is not None and (
            not batch.journeys or batch.atoms + len(following[1]) <= batch_atoms
        ):
            place, atoms = following
            try:
                batch.enter(place, atoms)
            except InputError as error:
                yield Outcome(place=place, status="failed", message=str(error), result=None, novelty=None)
            following = next(waiting, None)
        yield from batch.advance()
