"""Minima that are sure to be minima, with their vibrations, as a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError
from mlip.search.lockstep import Ask, Search
from mlip.search.reaction import vibrations_of
from mlip.search.stationary import AtomSpace, StationaryPoint, minimum_search
from mlip.search.verdict import has_imaginary

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.search.vibrations import Vibrations

ESCAPES: Final = 3
"""How often a saddle is left before giving up."""

AT_REST: Final = 0.05
"""eV/Å; ends with smaller forces that did not converge, such as loose fragments, will do for a verdict."""

SIDESTEP: Final = 0.1
"""Å; displacement along the imaginary mode by which it is left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Settled:
    """A relaxed structure.

    Attributes:
        vibrations: The structure with its Hessian and modes.
        minimum: Whether it is at rest and no mode is imaginary.
        why: What is missing; empty where nothing is.
    """

    vibrations: Vibrations
    minimum: bool
    why: str = ""


def settling(
    atoms: Atoms, *, fmax: float, steps: int, quick: bool, start: StationaryPoint | None = None
) -> Search[Settled]:
    """Relax, compute the Hessian, leave a saddle along its imaginary mode and relax again.

    Args:
        atoms: Where to start.
        fmax: eV/Å.
        steps: Of each relaxation.
        quick: As for `minimum_search`.
        start: The end of a relaxation of `atoms` that was already done.

    Raises:
        InputError: A structure cannot be evaluated.
    """
    for escapes in range(ESCAPES + 1):
        point = start
        if point is None:
            point = yield from minimum_search(atoms, fmax=fmax, steps=steps, quick=quick)
        start = None
        if not point.exact:
            point = yield from with_hessian(point)
        found = vibrations_of(point)
        if point.fmax > AT_REST:
            return Settled(vibrations=found, minimum=False, why=point.why)
        if not has_imaginary(found.modes):
            return Settled(vibrations=found, minimum=True)
        if escapes < ESCAPES:
            sides = []
            for sign in (1.0, -1.0):
                side = point.atoms.copy()
                side.set_positions(
                    side.positions + sign * SIDESTEP * found.modes.cartesian[0], apply_constraint=False
                )
                sides.append(side)
            both = yield [Ask(atoms=side) for side in sides]
            atoms = sides[int(np.argmin([one.energy for one in both]))]
    return Settled(vibrations=found, minimum=False, why="an imaginary mode remains")


def with_hessian(point: StationaryPoint) -> Search[StationaryPoint]:
    """The same point with a Hessian computed there."""
    from dataclasses import replace

    (found,) = yield [Ask(atoms=point.atoms, hessian="true")]
    space = AtomSpace(point.atoms)
    hessian = space.reply(found).hessian
    if hessian is None:
        raise InputError("the surface gave no Hessian though it was asked to")
    return replace(
        point, hessian=hessian, exact=True, hessian_method=space.hessian_method, hessians=point.hessians + 1
    )
