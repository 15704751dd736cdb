"""`RFO`: restricted-step rational function optimisation as an ASE optimiser, for any calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ase import Atoms
from ase.optimize.optimize import Optimizer

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.search import walk
from mlip.search.model_hessian import model_hessian
from mlip.search.stationary import AtomSpace, predicts_hessians, with_true_hessians

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from ase.filters import Filter
    from jaxtyping import Float64

    from mlip.search.lockstep import Hessian

STIFFNESS: Final = 70.0
"""eV/Å²; of coordinates that no model Hessian knows, such as those of a cell."""

_UNENDING: Final = 10**9


class RFO(Optimizer):
    """Minimises with a Hessian: computed at each step where the calculator predicts one for about the
    price of forces, else started from a model of springs and updated from the gradients.

    Each step is one evaluation; a step that goes up is tried again, shorter, by the next.
    """

    def __init__(
        self,
        atoms: Atoms | Filter,
        restart: str | Path | None = None,
        logfile: IO | str | Path | None = "-",
        trajectory: str | Path | None = None,
        append_trajectory: bool = False,
        *,
        hessian_every: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Set up; see `ase.optimize.optimize.Optimizer` for what is not listed.

        Args:
            atoms: A structure with a calculator, or one of ASE's filters.
            restart: Must be None: a walk has no file to go on from.
            hessian_every: Steps from one true Hessian to the next, 0 for never; None is to take those that
                the calculator predicts, if it does. With a filter, or constraints other than `FixAtoms` and
                `FixCartesian`, it must be 0 or None.

        Raises:
            InputError: An argument is not as above.
        """
        if restart is not None:
            raise InputError("`restart` is set, but RFO cannot go on from a file: leave it out")
        target: Any = atoms
        plain = isinstance(atoms, Atoms) and _knows_constraints(atoms)
        calculator = getattr(atoms, "calc", None)
        self.quick = (
            hessian_every is None
            and plain
            and calculator is not None
            and predicts_hessians(as_surface(calculator))
        )
        if hessian_every is not None and (hessian_every < 0 or (hessian_every and not plain)):
            raise InputError(
                f"`hessian_every` is {hessian_every} but must be 0 or more, and 0 with a filter or "
                "constraints other than FixAtoms and FixCartesian"
            )
        self.hessian_every = hessian_every or 0
        self._space: AtomSpace | _AnySpace = AtomSpace(target) if plain else _AnySpace(target)
        self._walk: walk.Walk | None = None
        self._probe = walk.Probe(x=np.zeros(0), hessian="none")
        super().__init__(target, None, logfile, trajectory, append_trajectory, **kwargs)

    def step(self, forces: Float64[np.ndarray, "atoms 3"] | None = None) -> None:
        """Tell the walk what is here, and go where it asks to."""
        x = np.array(self.optimizable.get_x())
        if self._walk is None:
            self._walk = walk.minimise(
                x,
                self._space,
                fmax=-1.0,
                steps=_UNENDING,
                exact_every=self.hessian_every,
                quick=self.quick,
            )
            self._probe = next(self._walk)
        self._probe = self._walk.send(self._reply(x, self._probe.hessian))
        self.optimizable.set_x(self._probe.x)

    def _reply(self, x: Float64[np.ndarray, " coordinates"], hessian: Hessian) -> walk.Reply:
        energy = float(self.optimizable.get_value())
        gradient = np.array(self.optimizable.get_gradient())
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            raise InputError("energy or forces are not finite: the structure is out of bounds")
        second = None
        if hessian != "none":
            assert isinstance(self._space, AtomSpace)
            surface = as_surface(self.atoms.calc)
            surface = with_true_hessians(surface) if hessian == "true" else surface
            (found,) = surface.evaluate([self.atoms], hessian=True)
            second = self._space.reply(found).hessian
        return walk.Reply(energy=energy, gradient=gradient, hessian=second)


class _AnySpace:
    """Coordinates of a filter, or of atoms with constraints that only they understand: every direction may be
    gone, and what the gradient leaves out stays."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def basis(self, x: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, "directions coordinates"]:
        return np.eye(len(x))

    def guess(self, x: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, "coordinates coordinates"]:
        atoms = self.target if isinstance(self.target, Atoms) else self.target.atoms
        known = model_hessian(atoms)
        hessian = STIFFNESS * np.eye(len(x))
        if len(known) <= len(x):
            hessian[: len(known), : len(known)] = known
        return hessian


def _knows_constraints(atoms: Atoms) -> bool:
    from ase.constraints import FixAtoms, FixCartesian

    return all(isinstance(constraint, (FixAtoms, FixCartesian)) for constraint in atoms.constraints)
