"""Dynamics of many molecules at constant energy, side by side: whether energy stays and molecules remain."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation

from mlip.calculators.surface import Evaluation, StructureError, Surface
from mlip.datasets.generation.topology import Topology

TIMESTEP = 1.0
"""fs: ten steps in a vibration of hydrogen, the most that anyone would take."""
LOOK_EVERY = 100
"""Steps between two looks at energy and temperature."""
HOT = 10.0
"""Times the temperature to begin with: a molecule that is hotter has run away."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What became of a molecule.

    Attributes:
        exploded: It ran away: nuclei met, energies were not finite, or it became ten times as hot.
        drift: Slope of the energy, times the length of the run, eV/atom; None of one that exploded.
        temperature: Mean over the second half, K; likewise.
        reacted: Other bonds than at the start.
    """

    exploded: bool
    drift: float | None
    temperature: float | None
    reacted: bool


def constant_energy(
    structures: Sequence[Atoms], surface: Surface, *, temperature: float, picoseconds: float, seed: int
) -> list[Course]:
    """Velocity Verlet from minima, with velocities of twice the temperature: half of that goes into bonds."""
    rng = np.random.default_rng(seed)
    moving = {n: atoms.copy() for n, atoms in enumerate(structures)}
    for atoms in moving.values():
        spread = np.sqrt(2 * units.kB * temperature * atoms.get_masses())[:, None]
        atoms.set_momenta(spread * rng.normal(size=(len(atoms), 3)))
        Stationary(atoms)
        ZeroRotation(atoms)
    steps, dt = round(1000 * picoseconds / TIMESTEP), TIMESTEP * units.fs
    looks: dict[int, list[tuple[float, float]]] = {n: [] for n in moving}
    forces = {n: e.forces for n, e in evaluated(moving, surface).items()}
    begin = time.monotonic()
    for step in range(1, steps + 1):
        for n, atoms in moving.items():
            atoms.set_momenta(atoms.get_momenta() + 0.5 * dt * forces[n])
            atoms.positions += dt * atoms.get_velocities()
        found = evaluated(moving, surface)
        moving = {n: moving[n] for n in found}
        for n, atoms in moving.items():
            forces[n] = found[n].forces
            atoms.set_momenta(atoms.get_momenta() + 0.5 * dt * forces[n])
        if step % LOOK_EVERY == 0:
            for n in [n for n, atoms in moving.items() if atoms.get_temperature() > 2 * HOT * temperature]:
                del moving[n]
            for n, atoms in moving.items():
                energy = found[n].energy + atoms.get_kinetic_energy()
                looks[n].append((energy / len(atoms), atoms.get_temperature()))
        if step % (100 * LOOK_EVERY) == 0:
            left = (time.monotonic() - begin) / step * (steps - step)
            print(f"{step}/{steps} steps, {len(moving)} molecules, {left:.0f} s left", file=sys.stderr)
    return [
        ended(atoms, moving.get(n), np.array(looks[n]), picoseconds) for n, atoms in enumerate(structures)
    ]


def evaluated(moving: dict[int, Atoms], surface: Surface) -> dict[int, Evaluation]:
    """Energies and forces of all that have them."""
    left = dict(moving)
    while left:
        places = list(left)
        try:
            return dict(zip(places, surface.evaluate(list(left.values())), strict=True))
        except StructureError as error:
            del left[places[error.place]]
    return {}


def ended(start: Atoms, last: Atoms | None, looks: np.ndarray, picoseconds: float) -> Course:
    """From energies (eV/atom) and temperatures at equal intervals."""
    if last is None or len(looks) < 2:
        return Course(exploded=last is None, drift=None, temperature=None, reacted=False)
    before, after = (Topology.of_geometry(a.numbers, a.positions).adjacency for a in (start, last))
    times = np.linspace(0.0, picoseconds, len(looks))
    return Course(
        exploded=False,
        drift=float(np.polyfit(times, looks[:, 0], 1)[0] * picoseconds),
        temperature=float(looks[len(looks) // 2 :, 1].mean()),
        reacted=bool((before != after).any()),
    )
