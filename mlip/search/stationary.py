"""Minima and saddles of structures: walks of `mlip.search.walk` on atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search import walk
from mlip.search.lockstep import FAILURES, Ask, Search, run
from mlip.search.model_hessian import model_hessian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64

    from mlip.calculators.surface import Evaluation, Surface

EXACT_EVERY: Final = 6
"""Steps to a saddle from one true Hessian to the next."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StationaryPoint:
    """The end of a search for a minimum or saddle.

    Attributes:
        atoms: The structure, without a calculator.
        energy: eV.
        forces: eV/Å, zero where atoms are fixed.
        fmax: Largest force on an atom that may move, eV/Å.
        converged: Whether `fmax` is as demanded and, for a saddle, exactly one mode is negative.
        steps: Evaluations after the first.
        hessian: The last Hessian, eV/Å².
        exact: Whether it was computed here, not updated from earlier ones.
        hessian_method: How the last computed one was made; None if none was.
        hessians: Hessians computed on the way.
        novelty: See `Vibrations`.
        why: What kept it from converging; empty where nothing did.
    """

    atoms: Atoms
    energy: float
    forces: Float64[np.ndarray, "atoms 3"]
    fmax: float
    converged: bool
    steps: int
    hessian: Float64[np.ndarray, "coordinates coordinates"]
    exact: bool
    hessian_method: str | None
    hessians: int
    novelty: float | None
    why: str


class AtomSpace:
    """The coordinates of atoms that may move, rigid motions left out."""

    def __init__(self, atoms: Atoms) -> None:
        """Numbers, cell and constraints (`FixAtoms`, `FixCartesian`) are those of `atoms`."""
        self.atoms = atoms.copy()
        self.free = rigid_motions(atoms, mass_weighted=False).free
        self.hessian_method: str | None = None

    def at(self, x: Float64[np.ndarray, " coordinates"]) -> Atoms:
        """The structure with other positions."""
        moved: Atoms = self.atoms.copy()
        moved.set_positions(x.reshape(-1, 3), apply_constraint=False)
        return moved

    def basis(self, x: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, "directions coordinates"]:
        """See `walk.Space`."""
        return rigid_motions(self.at(x), mass_weighted=False).complement

    def guess(self, x: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, "coordinates coordinates"]:
        """See `walk.Space`."""
        return model_hessian(self.at(x))

    def reply(self, found: Evaluation) -> walk.Reply:
        """What was found at a structure, seen from the coordinates that may move."""
        hessian = found.hessian
        if hessian is not None:
            self.hessian_method = found.hessian_method
            hessian = np.where(np.outer(self.free, self.free), hessian, 0.0)
        gradient = np.where(self.free, -found.forces.ravel(), 0.0)
        novelty = None if found.novelty is None else float(found.novelty.max())
        return walk.Reply(energy=found.energy, gradient=gradient, hessian=hessian, novelty=novelty)


def predicts_hessians(surface: Surface) -> bool:
    """Whether the surface predicts Hessians for about the price of forces."""
    from mlip.calculators.batch import BatchCalculator

    return isinstance(surface, BatchCalculator) and surface.hessian_method == "direct"


def with_true_hessians(surface: Surface) -> Surface:
    """The surface with the second derivatives of its energy where it predicts Hessians; else as it is."""
    from mlip.calculators.batch import BatchCalculator

    if isinstance(surface, BatchCalculator) and surface.hessian_method == "direct":
        return BatchCalculator(surface.potential, max_atoms=surface.max_atoms, hessian_method="autograd")
    return surface


def minimum_search(
    atoms: Atoms, *, fmax: float, steps: int, exact_every: int = 0, quick: bool = False
) -> Search[StationaryPoint]:
    """A search, to be driven by `lockstep.run`, for the minimum below `atoms`; see `walk.minimise`."""
    space = AtomSpace(atoms)
    x = atoms.positions.ravel().copy()
    return _on_atoms(
        space, walk.minimise(x, space, fmax=fmax, steps=steps, exact_every=exact_every, quick=quick)
    )


def saddle_search(
    atoms: Atoms,
    *,
    fmax: float,
    steps: int,
    exact_every: int,
    quick: bool = False,
    along: Float64[np.ndarray, "atoms 3"] | None = None,
    hessian: Float64[np.ndarray, "coordinates coordinates"] | None = None,
) -> Search[StationaryPoint]:
    """A search, to be driven by `lockstep.run`, for a saddle near `atoms`; see `walk.climb`."""
    space = AtomSpace(atoms)
    going = walk.climb(
        atoms.positions.ravel().copy(),
        space,
        fmax=fmax,
        steps=steps,
        exact_every=exact_every,
        quick=quick,
        along=None if along is None else along.ravel(),
        hessian=hessian,
    )
    return _on_atoms(space, going)


def _on_atoms(space: AtomSpace, going: walk.Walk) -> Search[StationaryPoint]:
    """Evaluate a walk's probes as structures."""
    answer: Any = None
    try:
        while True:
            probe = going.throw(answer) if isinstance(answer, Exception) else going.send(answer)
            try:
                (found,) = yield [Ask(atoms=space.at(probe.x), hessian=probe.hessian)]
                answer = space.reply(found)
            except FAILURES as error:
                answer = error
    except StopIteration as stop:
        end: walk.Walked = stop.value
    return StationaryPoint(
        atoms=space.at(end.x),
        energy=end.energy,
        forces=-end.gradient.reshape(-1, 3),
        fmax=end.fmax,
        converged=end.converged,
        steps=end.steps,
        hessian=end.hessian,
        exact=end.exact,
        hessian_method=space.hessian_method,
        hessians=end.hessians,
        novelty=end.novelty,
        why=end.why,
    )


def find_minima(
    structures: Sequence[Atoms],
    calculator: BaseCalculator | Surface,
    *,
    fmax: float = 0.01,
    steps: int = 200,
) -> list[StationaryPoint]:
    """Minimise many structures at once with restricted-step RFO.

    With a potential that predicts Hessians, one is used at every step as long as that leads on, and the true
    one of its end confirms that it is a minimum. Else the search starts from a model Hessian, which the
    gradients mend.

    Args:
        structures: Where to start; not changed. `FixAtoms` and `FixCartesian` are honoured.
        calculator: Any ASE calculator, or a `Surface`.
        fmax: Converged when no force is larger, eV/Å.
        steps: Give up after this many.

    Raises:
        InputError: An argument is not as above, or a structure cannot be evaluated.
    """
    check_demand(fmax, steps)
    surface = as_surface(calculator)
    quick = predicts_hessians(surface)
    searches = [minimum_search(atoms, fmax=fmax, steps=steps, quick=quick) for atoms in structures]
    return run(surface, searches, true=with_true_hessians(surface))


def find_saddles(
    structures: Sequence[Atoms],
    calculator: BaseCalculator | Surface,
    *,
    along: Sequence[Float64[np.ndarray, "atoms 3"] | None] | None = None,
    fmax: float = 0.01,
    steps: int = 100,
    exact_every: int = EXACT_EVERY,
    quick: bool = False,
) -> list[StationaryPoint]:
    """Refine many guesses of saddles at once with restricted-step P-RFO.

    Args:
        structures: Guesses; not changed. `FixAtoms` and `FixCartesian` are honoured.
        calculator: Any ASE calculator, or a `Surface`.
        along: For each structure a direction, such as the tangent of a path: the mode most like it is
            followed. None is the lowest mode.
        fmax: Converged when no force is larger, eV/Å, and exactly one mode is negative.
        steps: Give up after this many.
        exact_every: Steps from one true Hessian to the next, with Bofill updates between; 1 is each step.
        quick: Take the Hessians that a potential predicts, at each step but the first and last, as long as
            that leads on.

    Raises:
        InputError: An argument is not as above, or a structure cannot be evaluated.
    """
    check_demand(fmax, steps)
    surface = as_surface(calculator)
    directions = [None] * len(structures) if along is None else along
    searches = [
        saddle_search(atoms, fmax=fmax, steps=steps, exact_every=exact_every, quick=quick, along=direction)
        for atoms, direction in zip(structures, directions, strict=True)
    ]
    return run(surface, searches, true=with_true_hessians(surface))


def check_demand(fmax: float, steps: int) -> None:
    """Raise `InputError` unless `fmax` is a positive force and `steps` not negative."""
    if not (fmax > 0.0 and np.isfinite(fmax)):
        raise InputError(f"`fmax` is {fmax} but must be a positive force in eV/Å")
    if steps < 0:
        raise InputError(f"`steps` is {steps} but must be 0 or more")
