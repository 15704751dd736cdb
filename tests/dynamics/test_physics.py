"""Molecular dynamics against what statistical mechanics says of it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLengths

from mlip.dynamics.run import molecular_dynamics
from mlip.dynamics.settings import DynamicsSettings
from mlip.units import BOLTZMANN, GPA

SPRING = 20.0
"""eV/Å²."""


class Wells(Calculator):
    """Each atom in a harmonic well of its own."""

    implemented_properties = ("energy", "forces")

    def __init__(self, centres: np.ndarray) -> None:
        super().__init__()
        self.centres = centres

    def calculate(self, atoms, properties, system_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.centres
        self.results = {"energy": 0.5 * SPRING * (away**2).sum(), "forces": -SPRING * away}


class Solid(Calculator):
    """Wells that move with a cell whose elastic energy is V₀ (M/2) tr η², with Green's strain
    η = (F Fᵀ − 1)/2 of F = h₀⁻¹ h."""

    implemented_properties = ("energy", "forces", "stress")
    modulus = 30.0 * GPA

    def __init__(self, atoms: Atoms) -> None:
        super().__init__()
        self.scaled = atoms.get_scaled_positions(wrap=False)
        self.cell = atoms.cell.array.copy()

    def calculate(self, atoms, properties, system_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.scaled @ self.atoms.cell.array
        away -= away.mean(axis=0)
        deformation = np.linalg.solve(self.cell, self.atoms.cell.array)
        strain = 0.5 * (deformation @ deformation.T - np.eye(3))
        size = self.modulus * abs(np.linalg.det(self.cell))
        virial = SPRING * away.T @ away + size * deformation.T @ strain @ deformation
        self.results = {
            "energy": 0.5 * SPRING * (away**2).sum() + 0.5 * size * (strain**2).sum(),
            "forces": -SPRING * away,
            "stress": (virial / self.atoms.cell.volume)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }


def wells(count: int = 8) -> tuple[Atoms, Wells]:
    """Carbon atoms far apart, of which the first is fixed: the frame is held."""
    atoms = Atoms(f"C{count}", positions=np.arange(count)[:, None] * [4.0, 0.0, 0.0])
    atoms.set_constraint(FixAtoms([0]))
    return atoms, Wells(atoms.positions.copy())


def argon() -> tuple[Atoms, LennardJones]:
    """A drop of 13 atoms."""
    positions = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2).positions
    near = np.argsort(((positions - positions.mean(axis=0)) ** 2).sum(axis=1), kind="stable")[:13]
    return Atoms("Ar13", positions=positions[near]), LennardJones(sigma=3.4, epsilon=0.0104, rc=30.0)


def test_verlet_conserves_energy_to_second_order() -> None:
    """The error of the energy falls with the square of the step, and does not drift."""
    atoms, calculator = argon()
    errors = {}
    for timestep in (8.0, 4.0):
        settings = DynamicsSettings(ensemble="nve", temperature=20.0, timestep=timestep, seed=3)
        result = molecular_dynamics(atoms, calculator, settings, steps=int(1200 / timestep), interval=1)
        total = result.table["total_eV"]
        errors[timestep] = np.abs(total - total[0]).max()
        np.testing.assert_array_equal(result.table["conserved_eV"], total)
        assert abs(result.drift) < 1e-5
        assert result.status == "completed"
    assert errors[8.0] / errors[4.0] == pytest.approx(4.0, rel=0.3)
    assert errors[4.0] < 0.01 * np.ptp(result.table["kinetic_eV"])


def test_verlet_follows_the_exact_oscillation() -> None:
    """x(t) = x₀ cos ωt in a well, with the frequency that velocity Verlet has: sin(ω'Δt/2) = ωΔt/2."""
    from ase.units import fs

    atoms, calculator = wells(2)
    atoms.positions[1, 0] += 0.05
    atoms.set_momenta([[0.0, 0.0, 0.0], [0.0, 1e-12, 0.0]])
    settings = DynamicsSettings(ensemble="nve", timestep=0.5)
    result = molecular_dynamics(atoms, calculator, settings, steps=200, interval=1)
    omega = np.sqrt(SPRING / atoms.get_masses()[1])
    discrete = 2.0 / (0.5 * fs) * np.arcsin(0.5 * omega * 0.5 * fs)
    expected = 0.5 * SPRING * 0.05**2 * np.cos(discrete * result.table["time_fs"] * fs) ** 2
    np.testing.assert_allclose(result.table["potential_eV"], expected, atol=1e-12)


@pytest.mark.parametrize("thermostat", ["bussi", "langevin"])
def test_kinetic_energy_is_canonical(thermostat: str) -> None:
    """Mean N_f kT/2 and variance N_f (kT)²/2, in potential energy, too: equipartition."""
    atoms, calculator = wells()
    time = {"thermostat_time": 10.0} if thermostat == "bussi" else {"friction": 0.1}
    settings = DynamicsSettings(temperature=400.0, timestep=2.0, thermostat=thermostat, seed=5, **time)
    result = molecular_dynamics(atoms, calculator, settings, steps=2400, interval=3)
    assert result.degrees_of_freedom == 21
    unit = BOLTZMANN * 400.0
    kinetic, potential = result.table["kinetic_eV"][50:] / unit, result.table["potential_eV"][50:] / unit
    assert kinetic.mean() == pytest.approx(21 / 2, rel=0.06)
    assert potential.mean() == pytest.approx(21 / 2, rel=0.08)
    assert kinetic.var() == pytest.approx(21 / 2, rel=0.25)
    np.testing.assert_array_equal(result.atoms.positions[0], atoms.positions[0])
    np.testing.assert_array_equal(result.atoms.get_momenta()[0], 0.0)
    assert (result.drift is None) == (thermostat == "langevin")
    if thermostat == "bussi":
        assert np.ptp(result.table["conserved_eV"]) < 0.05 * np.ptp(result.table["total_eV"])


@pytest.mark.parametrize("thermostat", ["bussi", "langevin"])
def test_centre_of_mass_rests_and_takes_no_part(thermostat: str) -> None:
    atoms, calculator = argon()
    settings = DynamicsSettings(temperature=20.0, timestep=5.0, thermostat=thermostat, seed=1)
    result = molecular_dynamics(atoms, calculator, settings, steps=50)
    assert result.degrees_of_freedom == 36
    np.testing.assert_allclose(result.atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(
        result.atoms.get_center_of_mass(), atoms.get_center_of_mass(), rtol=0, atol=1e-10
    )
    assert result.atoms.constraints == []
    assert result.table["temperature_K"][0] == pytest.approx(
        2 * result.table["kinetic_eV"][0] / (36 * BOLTZMANN)
    )


def test_velocities_of_the_structure_are_kept_less_the_common_one() -> None:
    atoms, calculator = argon()
    momenta = np.random.default_rng(0).normal(size=(13, 3))
    atoms.set_momenta(momenta)
    result = molecular_dynamics(atoms, calculator, DynamicsSettings(ensemble="nve"), steps=0)
    np.testing.assert_allclose(result.atoms.get_momenta(), momenta - momenta.mean(axis=0), atol=1e-12)


def test_initial_velocities_are_maxwell_boltzmann_and_belong_to_the_seed() -> None:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(5)
    calculator = Wells(atoms.positions.copy())
    drawn = [
        molecular_dynamics(
            atoms, calculator, DynamicsSettings(ensemble="nve", temperature=300.0, seed=seed), steps=0
        ).atoms.get_momenta()
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    scaled = drawn[0] / np.sqrt(atoms.get_masses()[:, None] * BOLTZMANN * 300.0)
    assert scaled.var() == pytest.approx(1.0, abs=0.1)
    assert (scaled**4).mean() == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("cell", ["isotropic", "full"])
def test_constant_pressure(cell: str) -> None:
    """Temperature with 3N − 3 degrees of freedom, pressure and volume as asked for, energy conserved."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    calculator = Solid(atoms)
    pressure = 2.0
    settings = DynamicsSettings(
        ensemble="npt",
        temperature=300.0,
        pressure_gpa=pressure,
        timestep=4.0,
        thermostat_time=60.0,
        barostat_time=300.0,
        cell=cell,
        seed=2,
    )
    result = molecular_dynamics(atoms, calculator, settings, steps=1200, interval=2)
    table = {name: values[100:] for name, values in result.table.items()}
    assert result.degrees_of_freedom == 9
    assert table["temperature_K"].mean() == pytest.approx(300.0, rel=0.1)
    assert table["pressure_GPa"].mean() == pytest.approx(pressure, abs=0.3)
    assert np.ptp(table["conserved_eV"]) < 0.02 * np.ptp(table["total_eV"])
    lengths = result.atoms.cell.lengths()
    assert (np.ptp(lengths) < 1e-9) == (cell == "isotropic")


def test_bonds_can_be_held() -> None:
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [3.8, 0, 0], [1.9, 3.2, 0]])
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    settings = DynamicsSettings(temperature=40.0, timestep=4.0)
    result = molecular_dynamics(atoms, LennardJones(sigma=3.4, epsilon=0.0104, rc=30.0), settings, steps=100)
    assert result.degrees_of_freedom == 5
    assert result.atoms.get_distance(0, 1) == pytest.approx(3.8, abs=1e-6)
    assert result.atoms.get_distance(0, 2) != pytest.approx(atoms.get_distance(0, 2), abs=1e-3)


def test_a_molecule_of_the_input_is_left_alone() -> None:
    atoms, calculator = argon()
    before = atoms.positions.copy()
    molecular_dynamics(atoms, calculator, DynamicsSettings(temperature=20.0), steps=5)
    np.testing.assert_array_equal(atoms.positions, before)
    assert not atoms.has("momenta")
    assert atoms.calc is None
