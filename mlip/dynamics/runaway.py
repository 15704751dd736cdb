"""Signs that a simulation has left what its potential describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.neighbors import neighbor_list

if TYPE_CHECKING:
    from ase import Atoms

CLOSEST: Final = 0.4
"""Atoms collide below this part of the sum of their covalent radii; in hot molecules the shortest bonds come
down to about 0.7."""

HOTTEST: Final = 20.0
"""Times the temperature that was asked for or started from; far beyond the fluctuations of even three degrees
of freedom (one sample in 10¹²)."""

HOTTEST_FLOOR: Final = 10_000.0
"""K; a strained structure may heat up to this."""

FARTHEST_ENERGY: Final = 10.0
"""eV per atom by which the potential energy may leave its initial value: more than any bond holds."""


def collision(atoms: Atoms) -> str | None:
    """Says which atoms, if any, are closer than `CLOSEST` allows."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    cutoff = 2.0 * CLOSEST * float(radii.max())
    senders, receivers, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    if len(senders) == 0:
        return None
    vectors = atoms.positions[senders] - atoms.positions[receivers] + shifts @ atoms.cell.array
    distances = np.linalg.norm(vectors, axis=1)
    ratio = distances / (radii[senders] + radii[receivers])
    worst = int(np.argmin(ratio))
    if ratio[worst] >= CLOSEST:
        return None
    first, second = sorted((int(senders[worst]), int(receivers[worst])))
    symbols = atoms.get_chemical_symbols()
    return (
        f"atoms {first} ({symbols[first]}) and {second} ({symbols[second]}) collided: "
        f"they are {distances[worst]:.3f} Å apart"
    )


class Watch:
    """Looks at temperature and potential energy after each step."""

    def __init__(self, atoms: int, energy: float, temperature: float) -> None:
        """Remember the start.

        Args:
            atoms: Their number.
            energy: Potential energy at the start, eV.
            temperature: The higher of the initial temperature and the thermostat's, K.
        """
        self._atoms = atoms
        self._energy = energy
        self._hottest = max(HOTTEST_FLOOR, HOTTEST * temperature)

    def verdict(self, energy: float, temperature: float) -> str | None:
        """What is wrong, or None."""
        if not (np.isfinite(energy) and np.isfinite(temperature)):
            return f"the potential energy is {energy} eV and the temperature {temperature} K"
        if temperature > self._hottest:
            return f"the temperature rose to {temperature:.0f} K, above {self._hottest:.0f} K"
        change = (energy - self._energy) / self._atoms
        if abs(change) > FARTHEST_ENERGY:
            return f"the potential energy changed by {change:+.1f} eV per atom since the start"
        return None
