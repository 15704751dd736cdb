"""A true minimum and its vibrations: relaxation that does not end on a saddle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.search.relax import RelaxResult, relax
from mlip.search.vibrations import Vibrations, vibrations

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from mlip.hessian import HessianMethod
    from mlip.search.relax import RelaxStep

ESCAPES: Final = 3
"""How often a saddle is left before giving up."""

SIDESTEP: Final = 0.1
"""Å; length of the displacement along the imaginary mode by which a saddle is left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """The end of a search for a minimum.

    Attributes:
        relaxation: The last relaxation.
        vibrations: At its end; None where it did not converge.
        escapes: Saddles that were left on the way.
        converged: Whether the forces vanish and no mode is imaginary.
    """

    relaxation: RelaxResult
    vibrations: Vibrations | None
    escapes: int

    @property
    def converged(self) -> bool:
        """Whether this is a minimum."""
        return self.vibrations is not None and self.vibrations.modes.num_imaginary == 0


def minimum(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    optimizer: str = "auto",
    hessian_method: HessianMethod | None = None,
    callback: Callable[[RelaxStep], None] | None = None,
) -> Minimum:
    """Relax a structure and compute its vibrations; leave a saddle, on which symmetry may have held it, along
    the lowest imaginary mode to the lower side, and relax again.

    Args:
        atoms: Where to start; not changed. Fixed atoms stay, the cell too.
        calculator: Any ASE calculator.
        fmax: As for `relax`.
        steps: Of each relaxation.
        optimizer: As for `relax`.
        hessian_method: As for `vibrations`.
        callback: As for `relax`.

    Raises:
        InputError: As `relax` and `vibrations`.
    """
    surface = as_surface(calculator)
    for escapes in range(ESCAPES + 1):
        relaxation = relax(atoms, calculator, fmax=fmax, steps=steps, optimizer=optimizer, callback=callback)
        if not relaxation.converged:
            return Minimum(relaxation=relaxation, vibrations=None, escapes=escapes)
        found = vibrations(relaxation.atoms, surface, hessian_method=hessian_method)
        if found.modes.num_imaginary == 0 or escapes == ESCAPES:
            break
        sides = []
        for sign in (1.0, -1.0):
            side = relaxation.atoms.copy()
            side.positions = side.positions + sign * SIDESTEP * found.modes.cartesian[0]
            sides.append(side)
        atoms = sides[int(np.argmin([side.energy for side in surface.evaluate(sides)]))]
    return Minimum(relaxation=relaxation, vibrations=found, escapes=escapes)
