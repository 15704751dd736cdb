"""ASE's integrators, with the right degrees of freedom and a state that can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.dynamics.freedom import degrees_of_freedom, is_held
from mlip.errors import InputError
from mlip.units import BOLTZMANN, GPA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from mlip.dynamics.settings import DynamicsSettings

FULL_CELL_FREEDOM: Final = 6
"""Of a cell that changes its shape but does not turn."""

_CHAINS: Final = ("_thermostat._eta", "_thermostat._p_eta", "_barostat._xi", "_barostat._p_xi")

_STATE: Final = {
    "VelocityVerlet": (),
    "Langevin": (),
    "Bussi": ("transferred_energy",),
    "IsotropicMTKNPT": ("_q", "_p", "_eps", "_p_eps", *_CHAINS),
    "MTKNPT": ("_q", "_p", "_h", "_p_g", *_CHAINS),
}
"""What each of ASE's classes carries from step to step beside the atoms and the random numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Integrator:
    """One of ASE's integrators on `atoms`, which it moves."""

    atoms: Atoms
    driver: Any

    def step(self) -> None:
        """One step."""
        self.driver.step()

    def conserved(self) -> float | None:
        """What the exact equations of motion conserve, eV; None for Langevin dynamics, where ASE does not
        keep account of the heat."""
        kind, total = type(self.driver).__name__, float(self.atoms.get_total_energy())
        if kind == "Langevin":
            return None
        if not kind.endswith("NPT"):
            return total - float(getattr(self.driver, "transferred_energy", 0.0))
        # ASE's own sum asks for a free energy, which not all calculators have
        driver = self.driver
        momenta = driver._p_g if kind == "MTKNPT" else driver._p_eps
        cell = float(np.sum(np.square(momenta))) / (2.0 * driver._barostat.W)
        chains = driver._thermostat.get_thermostat_energy() + driver._barostat.get_barostat_energy()
        return total + float(chains) + cell + driver._pressure_au * float(self.atoms.cell.volume)

    def state(self) -> dict[str, np.ndarray]:
        """Copies of all that `restore` needs, by name."""
        arrays = {
            "positions": self.atoms.get_positions(),
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array.copy(),
        }
        for name in _STATE[type(self.driver).__name__]:
            owner, attribute = self._find(name)
            arrays[name] = np.array(getattr(owner, attribute), dtype=np.float64)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to a state, bit for bit."""
        self.atoms.set_cell(arrays["cell"], apply_constraint=False)
        self.atoms.set_positions(arrays["positions"], apply_constraint=False)
        self.atoms.set_momenta(arrays["momenta"], apply_constraint=False)
        for name in _STATE[type(self.driver).__name__]:
            owner, attribute = self._find(name)
            value = arrays[name]
            setattr(owner, attribute, value.copy() if value.ndim else float(value))

    def _find(self, name: str) -> tuple[Any, str]:
        *path, attribute = name.split(".")
        owner = self.driver
        for part in path:
            owner = getattr(owner, part)
        getattr(
            owner, attribute
        )  # an ASE that names it otherwise shall fail here, not give another trajectory
        return owner, attribute


def make_integrator(atoms: Atoms, settings: DynamicsSettings, rng: np.random.Generator) -> Integrator:
    """An integrator at the start of its run.

    Args:
        atoms: With calculator and velocities; will be moved. Langevin dynamics adds a constraint on the
            centre of mass, unless atoms are held in space.
        settings: Settled.
        rng: Of the thermostat's noise.

    Raises:
        InputError: The installed ASE lacks the integrator.
    """
    try:
        driver = _driver(atoms, settings, rng)
    except ImportError as error:
        raise InputError(
            f'the installed ASE has no integrator for the ensemble "{settings.ensemble}" ({error}): '
            "pip install -U ase"
        ) from None
    return Integrator(atoms=atoms, driver=driver)


def _driver(atoms: Atoms, settings: DynamicsSettings, rng: np.random.Generator) -> Any:
    from ase.units import fs

    step, temperature = settings.timestep * fs, settings.temperature
    if settings.ensemble == "nve":
        from ase.md.verlet import VelocityVerlet

        return VelocityVerlet(atoms, step)
    if settings.ensemble == "npt":
        return _constant_pressure(atoms, settings, step)
    if settings.thermostat == "langevin":
        from ase.constraints import FixCom
        from ase.md.langevin import Langevin

        if not is_held(atoms):  # the noise would push the centre of mass
            atoms.set_constraint([*atoms.constraints, FixCom()])
        assert settings.friction is not None
        return Langevin(
            atoms, step, temperature_K=temperature, friction=settings.friction / fs, fixcm=False, rng=rng
        )
    from ase.md.bussi import Bussi

    assert settings.thermostat_time is not None
    bussi = Bussi(atoms, step, temperature_K=temperature, taut=settings.thermostat_time * fs, rng=rng)
    bussi.ndof = degrees_of_freedom(atoms)
    bussi.target_kinetic_energy = 0.5 * bussi.temp * bussi.ndof
    return bussi


def _constant_pressure(atoms: Atoms, settings: DynamicsSettings, step: float) -> Any:
    """Martyna–Tobias–Klein dynamics of 3(N − 1) degrees of freedom.

    ASE counts 3N, as if the centre of mass were thermal; it is at rest and stays so, whence the atoms would
    be hotter than asked for by N/(N − 1). In all of ASE's equations N is a third of the degrees of freedom.
    It also counts 9 of the full cell, which has 6: its momenta stay symmetric, as the stress is.
    """
    from ase.md.nose_hoover_chain import (
        MTKNPT,
        IsotropicMTKBarostat,
        IsotropicMTKNPT,
        MTKBarostat,
        NoseHooverChainThermostat,
    )
    from ase.units import fs

    assert settings.temperature is not None
    assert settings.thermostat_time is not None
    assert settings.barostat_time is not None
    assert settings.pressure_gpa is not None
    full = settings.cell == "full"
    temperature = settings.temperature
    tdamp, pdamp = settings.thermostat_time * fs, settings.barostat_time * fs
    driver: Any = (MTKNPT if full else IsotropicMTKNPT)(
        atoms,
        step,
        temperature_K=temperature,
        pressure_au=settings.pressure_gpa * GPA,
        tdamp=tdamp,
        pdamp=pdamp,
    )
    count = degrees_of_freedom(atoms) // 3
    driver._num_atoms_global = count
    driver._thermostat = NoseHooverChainThermostat(
        num_atoms_global=count, masses=driver.masses, temperature_K=temperature, tdamp=tdamp
    )
    driver._barostat = (MTKBarostat if full else IsotropicMTKBarostat)(
        num_atoms_global=count, temperature_K=temperature, pdamp=pdamp
    )
    if full:
        driver._barostat._cell_dof = FULL_CELL_FREEDOM
        driver._barostat._R[0] = FULL_CELL_FREEDOM * BOLTZMANN * temperature * pdamp**2
    return driver
