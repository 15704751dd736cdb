"""What a run of molecular dynamics is asked to do, and whether it can."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.dynamics.freedom import check_constraints, degrees_of_freedom, settle_momenta
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

ENSEMBLES: Final = ("nve", "nvt", "npt")
THERMOSTATS: Final = ("bussi", "langevin")
CELLS: Final = ("isotropic", "full")

FRICTION: Final = 0.01
"""1/fs, of the Langevin thermostat."""

THERMOSTAT_TIME: Final = 100.0
"""fs, of Bussi's thermostat and of the Nosé–Hoover chain of constant pressure."""

BAROSTAT_TIME: Final = 1000.0
"""fs."""


@dataclass(frozen=True, kw_only=True)
class DynamicsSettings:
    """The equations of motion; what is None takes its default or does not apply (`settle`).

    Attributes:
        ensemble: "nve" (velocity Verlet), "nvt", or "npt" (Martyna–Tobias–Klein).
        temperature: K. Of the thermostat; in "nve" of the initial velocities only.
        pressure_gpa: GPa, external pressure of "npt"; 0 unless given.
        timestep: fs.
        thermostat: Of "nvt": "bussi" (stochastic velocity rescaling, the default) or "langevin".
        friction: 1/fs, of "langevin"; 0.01 unless given.
        thermostat_time: fs, of "bussi" and of "npt"; 100 unless given.
        barostat_time: fs, of "npt"; 1000 unless given.
        cell: Of "npt": "isotropic" (the volume changes, the shape does not; the default) or "full".
        seed: Of the initial velocities and of the thermostat's noise.
    """

    ensemble: str = "nvt"
    temperature: float | None = None
    pressure_gpa: float | None = None
    timestep: float = 0.5
    thermostat: str | None = None
    friction: float | None = None
    thermostat_time: float | None = None
    barostat_time: float | None = None
    cell: str | None = None
    seed: int = 0


_APPLIES: Final = {
    "pressure_gpa": ("npt",),
    "thermostat": ("nvt",),
    "friction": ("nvt",),
    "thermostat_time": ("nvt", "npt"),
    "barostat_time": ("npt",),
    "cell": ("npt",),
}


def settle(settings: DynamicsSettings) -> DynamicsSettings:
    """Fill in the defaults of all that applies.

    Raises:
        InputError: A value is not as `DynamicsSettings` says, or does not apply to the ensemble.
    """
    ensemble = settings.ensemble
    _one_of("ensemble", ensemble, ENSEMBLES)
    for name, ensembles in _APPLIES.items():
        value = getattr(settings, name)
        if value is not None and ensemble not in ensembles:
            raise InputError(
                f'`{name}` is {value} but has no meaning in the ensemble "{ensemble}": leave it out, '
                f"or use {' or '.join(ensembles)}"
            )
    defaults: dict[str, float | str] = {}
    if ensemble == "nvt":
        defaults["thermostat"] = thermostat = settings.thermostat or "bussi"
        _one_of("thermostat", thermostat, THERMOSTATS)
        own, foreign = ("friction", "thermostat_time")[:: 1 if thermostat == "langevin" else -1]
        if getattr(settings, foreign) is not None:
            raise InputError(
                f'`{foreign}` is {getattr(settings, foreign)} but the thermostat "{thermostat}" has none: '
                f"use `{own}`"
            )
        defaults[own] = FRICTION if own == "friction" else THERMOSTAT_TIME
    if ensemble == "npt":
        defaults.update(
            pressure_gpa=0.0, thermostat_time=THERMOSTAT_TIME, barostat_time=BAROSTAT_TIME, cell="isotropic"
        )
    missing = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    settled: DynamicsSettings = dataclasses.replace(settings, **missing)  # type: ignore[arg-type]
    _check_numbers(settled)
    return settled


def _check_numbers(settings: DynamicsSettings) -> None:
    if settings.cell is not None:
        _one_of("cell", settings.cell, CELLS)
    for name, unit in (
        ("timestep", "time in fs"),
        ("friction", "rate in 1/fs"),
        ("thermostat_time", "time in fs"),
        ("barostat_time", "time in fs"),
    ):
        value = getattr(settings, name)
        if value is not None and not (value > 0.0 and math.isfinite(value)):
            raise InputError(f"`{name}` is {value} but must be a positive {unit}")
    if settings.pressure_gpa is not None and not math.isfinite(settings.pressure_gpa):
        raise InputError(f"`pressure_gpa` is {settings.pressure_gpa} but must be a number, GPa")
    if settings.seed < 0:
        raise InputError(f"`seed` is {settings.seed} but must be 0 or more")
    temperature = settings.temperature
    if temperature is None:
        if settings.ensemble != "nve":
            raise InputError(
                f'the ensemble "{settings.ensemble}" needs a temperature in K: '
                "give --temperature (`temperature`)"
            )
    elif not (temperature > 0.0 and math.isfinite(temperature)):
        raise InputError(f"`temperature` is {temperature} but must be positive, K")


def check_structure(atoms: Atoms, settings: DynamicsSettings) -> None:
    """See whether a structure can be moved as settled.

    Raises:
        InputError: It cannot.
    """
    if len(atoms) == 0:
        raise InputError("the structure has no atoms: at least one is needed")
    masses = atoms.get_masses()
    if not (masses > 0.0).all():
        light = int(np.flatnonzero(~(masses > 0.0))[0])
        raise InputError(f"atom {light} has the mass {masses[light]} but must have a positive one, g/mol")
    check_constraints(atoms)
    if settings.ensemble == "npt":
        if not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise InputError(
                'the ensemble "npt" changes the cell, but the structure is not periodic in three '
                "directions: use nve or nvt, or give it a cell and pbc"
            )
        if atoms.constraints:
            raise InputError(
                'the ensemble "npt" moves all atoms with the cell, but the structure has fixed atoms or '
                "other constraints: use nvt, or remove them"
            )
    if degrees_of_freedom(atoms) < 1:
        raise InputError(
            f"the {len(atoms)} atom(s) of the structure have no degree of freedom left (the constraints and "
            "the centre of mass, at rest, take all): nothing would move"
        )
    moving = has_velocities(atoms)
    if not np.isfinite(atoms.get_momenta()).all():
        raise InputError("the structure's velocities are not all finite: mend or remove them")
    if moving:
        _require_motion(atoms)
    if settings.ensemble == "nve":
        if settings.temperature is None and not moving:
            raise InputError(
                "the structure has no velocities: give the temperature of the initial ones in K, "
                "--temperature (`temperature`)"
            )
        if settings.temperature is not None and moving:
            raise InputError(
                f"the structure has velocities, which are kept, so that a temperature of "
                f"{settings.temperature} K has no meaning: leave it out, or remove the velocities"
            )


def _require_motion(atoms: Atoms) -> None:
    """See that velocities are left when fixed atoms and the centre of mass are put to rest."""
    settled = atoms.copy()
    settle_momenta(settled)
    if settled.get_kinetic_energy() <= 1e-12 * atoms.get_kinetic_energy():
        raise InputError(
            "the structure's velocities are those of its centre of mass and of fixed atoms, which are put to "
            "rest: nothing would move; remove them and give a temperature, or give others"
        )


def has_velocities(atoms: Atoms) -> bool:
    """Whether any atom moves."""
    return bool(atoms.has("momenta") and np.any(atoms.get_momenta() != 0.0))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f'`{name}` is "{value}" but must be one of: {", ".join(known)}')
