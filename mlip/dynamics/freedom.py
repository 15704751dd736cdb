"""Degrees of freedom, and velocities that have them.

Forces that come from a potential sum to zero, so that the total momentum is conserved: the centre of mass is
put to rest at the start and takes no part, which leaves 3N − 3 degrees of freedom. Where atoms are fixed, the
total momentum is not conserved, and nothing is taken away but what the constraints hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError
from mlip.units import BOLTZMANN

if TYPE_CHECKING:
    from ase import Atoms

_FIXING: Final = ("FixAtoms", "FixCartesian", "FixScaled", "FixedPlane", "FixedLine")
"""Constraints that hold atoms in space."""

_INTERNAL: Final = ("FixBondLengths", "FixLinearTriatomic", "FixInternals")
"""Constraints on the shape, which leave the centre of mass free."""


def check_constraints(atoms: Atoms) -> None:
    """See whether all constraints are of a kind whose degrees of freedom are known.

    Raises:
        InputError: One is not.
    """
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        if name not in (*_FIXING, *_INTERNAL, "FixCom"):
            raise InputError(
                f"the structure has the constraint {name}, which dynamics cannot honour: remove it, "
                f"or use one of {', '.join((*_FIXING, *_INTERNAL))}"
            )


def is_held(atoms: Atoms) -> bool:
    """Whether constraints hold some atom in space, so that the total momentum is not conserved."""
    return any(type(constraint).__name__ in _FIXING for constraint in atoms.constraints)


def degrees_of_freedom(atoms: Atoms) -> int:
    """3N less what the constraints hold, less 3 of the centre of mass unless atoms are held in space."""
    kinds = {type(constraint).__name__ for constraint in atoms.constraints}
    at_rest = 0 if "FixCom" in kinds or is_held(atoms) else 3
    return int(atoms.get_number_of_degrees_of_freedom()) - at_rest


def thermal_momenta(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw momenta from the Maxwell–Boltzmann distribution, constraints honoured, centre of mass at rest.

    They are not rescaled: the kinetic energy is spread as in the canonical ensemble.

    Args:
        atoms: Gets the momenta.
        temperature: K.
        rng: Draws 3N normal numbers.
    """
    spread = np.sqrt(atoms.get_masses() * BOLTZMANN * temperature)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * spread[:, None])
    rest_centre_of_mass(atoms)


def settle_momenta(atoms: Atoms) -> None:
    """Take away what cannot be: velocities of fixed atoms, and that of the centre of mass."""
    atoms.set_momenta(atoms.get_momenta())
    rest_centre_of_mass(atoms)


def rest_centre_of_mass(atoms: Atoms) -> None:
    """Take the common velocity away, unless atoms are held in space."""
    if is_held(atoms):
        return
    masses = atoms.get_masses()[:, None]
    momenta = atoms.get_momenta()
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())


def temperature_of(atoms: Atoms, freedom: int) -> float:
    """Kinetic temperature 2K / (k_B × degrees of freedom), K."""
    return 2.0 * float(atoms.get_kinetic_energy()) / (freedom * BOLTZMANN)
