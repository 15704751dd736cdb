"""Dynamics of many molecules at constant energy, side by side: whether energy stays and molecules remain."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, ZeroRotation

from mlip.calculators.surface import Evaluation, StructureError, Surface
from mlip.search.bonds import SCALE, bond_matrix

TIMESTEP = 0.5
"""fs. With 1 fs, ten steps in a vibration of hydrogen, molecules heat up."""
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
        reacted: Bonds were made or broken, beyond doubt.
    """

    exploded: bool
    drift: float | None
    temperature: float | None
    reacted: bool


@dataclass
class Dynamics:
    """Molecules on their way.

    Attributes:
        step: Taken so far.
        moving: Those that have not run away, by their place.
        looks: Energies, eV/atom, and temperatures, K, of each so far.
    """

    step: int
    moving: dict[int, Atoms]
    looks: dict[int, list[tuple[float, float]]]

    @classmethod
    def started(cls, structures: Sequence[Atoms], temperature: float, seed: int) -> Dynamics:
        """With velocities of twice the temperature: of a minimum, half of that goes into bonds."""
        rng = np.random.default_rng(seed)
        moving = {n: atoms.copy() for n, atoms in enumerate(structures)}
        for atoms in moving.values():
            spread = np.sqrt(2 * units.kB * temperature * atoms.get_masses())[:, None]
            atoms.set_momenta(spread * rng.normal(size=(len(atoms), 3)))
            Stationary(atoms)
            ZeroRotation(atoms)
        return cls(step=0, moving=moving, looks={n: [] for n in moving})

    @classmethod
    def read(cls, path: Path, structures: Sequence[Atoms]) -> Dynamics:
        """As they were written."""
        with np.load(path, allow_pickle=False) as held:
            moving = {}
            for n, atoms in enumerate(structures):
                if f"positions{n}" in held:
                    moving[n] = atoms.copy()
                    moving[n].positions = held[f"positions{n}"]
                    moving[n].set_momenta(held[f"momenta{n}"])
            looks = {n: [(e, t) for e, t in held[f"looks{n}"]] for n in range(len(structures))}
            return cls(step=int(held["step"]), moving=moving, looks=looks)

    def write(self, path: Path) -> None:
        """Everything that the next step needs."""
        held = {f"positions{n}": atoms.positions for n, atoms in self.moving.items()}
        held |= {f"momenta{n}": atoms.get_momenta() for n, atoms in self.moving.items()}
        held |= {f"looks{n}": np.array(looks).reshape(-1, 2) for n, looks in self.looks.items()}
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, step=self.step, **held)
        os.replace(temporary, path)


def constant_energy(
    structures: Sequence[Atoms],
    surface: Surface,
    *,
    temperature: float,
    picoseconds: float,
    seed: int,
    state: Path | None = None,
) -> list[Course]:
    """Velocity Verlet from minima. With a file for the state, a call that was stopped goes on from there."""
    if state is not None and state.exists():
        run = Dynamics.read(state, structures)
    else:
        run = Dynamics.started(structures, temperature, seed)
    steps, dt = round(1000 * picoseconds / TIMESTEP), TIMESTEP * units.fs
    forces = {n: e.forces for n, e in evaluated(run.moving, surface).items()}
    begin, before = time.monotonic(), run.step
    while run.step < steps:
        for n, atoms in run.moving.items():
            atoms.set_momenta(atoms.get_momenta() + 0.5 * dt * forces[n])
            atoms.positions += dt * atoms.get_velocities()
        found = evaluated(run.moving, surface)
        run.moving = {n: run.moving[n] for n in found}
        for n, atoms in run.moving.items():
            forces[n] = found[n].forces
            atoms.set_momenta(atoms.get_momenta() + 0.5 * dt * forces[n])
        run.step += 1
        if run.step % LOOK_EVERY == 0:
            look(run, found, 2 * HOT * temperature)
        if run.step % (50 * LOOK_EVERY) == 0:
            if state is not None:
                run.write(state)
            left = (time.monotonic() - begin) / (run.step - before) * (steps - run.step)
            print(
                f"{run.step}/{steps} steps, {len(run.moving)} molecules, {left:.0f} s left", file=sys.stderr
            )
    return [
        ended(atoms, run.moving.get(n), np.array(run.looks[n]), picoseconds)
        for n, atoms in enumerate(structures)
    ]


def look(run: Dynamics, found: dict[int, Evaluation], hottest: float) -> None:
    """Note energies and temperatures; those that are too hot have run away."""
    run.moving = {n: atoms for n, atoms in run.moving.items() if atoms.get_temperature() <= hottest}
    for n, atoms in run.moving.items():
        energy = found[n].energy + atoms.get_kinetic_energy()
        run.looks[n].append((energy / len(atoms), atoms.get_temperature()))


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
    times = np.linspace(0.0, picoseconds, len(looks))
    return Course(
        exploded=False,
        drift=float(np.polyfit(times, looks[:, 0], 1)[0] * picoseconds),
        temperature=float(looks[len(looks) // 2 :, 1].mean()),
        reacted=other_bonds(start, last) or other_bonds(last, start),
    )


def other_bonds(first: Atoms, second: Atoms) -> bool:
    """Whether a short bond of one is a long distance in the other: between the two lies what vibrates."""
    short, long = bond_matrix(first, scale=0.9 * SCALE), ~bond_matrix(second, scale=1.1 * SCALE)
    return bool((short & long).any())
