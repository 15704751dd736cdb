"""Relaxation, with classical potentials whose minima are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms
from ase.io import read

from mlip.errors import InputError
from mlip.search.relax import OPTIMIZERS, relax
from mlip.units import GPA

MINIMUM = 2 ** (1 / 6)
"""Distance of the Lennard-Jones minimum, in units of sigma; its depth is epsilon."""


def dimer() -> Atoms:
    return Atoms("Ar2", positions=[[0.0, 0.0, 0.0], [1.2, 0.05, 0.0]])


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=1.0, epsilon=1.0, rc=50.0)


@pytest.mark.parametrize("optimizer", ["auto", *OPTIMIZERS])
def test_dimer_reaches_the_known_minimum(optimizer: str) -> None:
    atoms = dimer()
    before = atoms.positions.copy()
    result = relax(atoms, lennard_jones(), fmax=1e-5, optimizer=optimizer)
    assert result.converged
    assert result.fmax <= 1e-5
    assert 0 < result.steps < 500
    assert result.atoms.get_distance(0, 1) == pytest.approx(MINIMUM, abs=1e-6)
    assert result.energy == pytest.approx(-1.0, abs=1e-6)
    assert result.atoms.get_potential_energy() == result.energy
    assert result.initial_energy > result.energy
    assert result.optimizer == ("internal" if optimizer == "auto" else optimizer)
    assert result.pressure_gpa is None
    np.testing.assert_array_equal(atoms.positions, before)
    assert atoms.calc is None


def test_crystal_reaches_its_lattice_constant() -> None:
    """EMT copper: 3.59 Å where energy per volume is least, found here by a parabola through three points."""
    energies, constants = [], np.array([3.585, 3.59, 3.595])
    for constant in constants:
        crystal = bulk("Cu", a=constant)
        crystal.calc = EMT()
        energies.append(crystal.get_potential_energy())
    parabola = np.polyfit(constants, energies, 2)
    best = -parabola[1] / (2 * parabola[0])
    result = relax(bulk("Cu", a=3.7), EMT(), cell=True, fmax=1e-5)
    assert result.converged
    assert (4 * result.atoms.cell.volume) ** (1 / 3) == pytest.approx(best, abs=1e-3)
    assert result.pressure_gpa == pytest.approx(0.0, abs=1e-3)


def test_pressure_is_reached() -> None:
    result = relax(bulk("Cu", a=3.6), EMT(), cell=True, pressure_gpa=10.0, fmax=1e-5)
    assert result.converged
    assert result.pressure_gpa == pytest.approx(10.0, abs=0.01)
    stress = result.atoms.get_stress()
    np.testing.assert_allclose(stress[:3], -10.0 * GPA, atol=1e-4)
    assert result.atoms.cell.volume < relax(bulk("Cu", a=3.6), EMT(), cell=True).atoms.cell.volume


def test_too_few_steps() -> None:
    result = relax(dimer(), lennard_jones(), fmax=1e-6, steps=2)
    assert not result.converged
    assert result.steps == 2
    assert result.fmax > 1e-6


def test_no_steps_only_looks() -> None:
    result = relax(dimer(), lennard_jones(), fmax=1e-6, steps=0)
    assert result.steps == 0
    assert result.energy == result.initial_energy
    np.testing.assert_array_equal(result.atoms.positions, dimer().positions)


def test_already_relaxed_takes_no_step() -> None:
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [MINIMUM, 0, 0]])
    result = relax(atoms, lennard_jones(), fmax=1e-3)
    assert result.converged
    assert result.steps == 0


def test_fixed_atoms_stay_and_do_not_count() -> None:
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [1.05, 0, 0], [0.4, 1.2, 0]])
    atoms.set_constraint(FixAtoms([0, 1]))
    result = relax(atoms, lennard_jones(), fmax=1e-4)
    assert result.converged
    np.testing.assert_array_equal(result.atoms.positions[:2], atoms.positions[:2])
    assert np.abs(result.atoms.get_forces(apply_constraint=False)[:2]).max() > 0.1


def test_composed_calculators() -> None:
    result = relax(dimer(), SumCalculator([lennard_jones(), lennard_jones()]), fmax=1e-5)
    assert result.energy == pytest.approx(-2.0, abs=1e-6)


def test_large_systems_do_not_diagonalise() -> None:
    result = relax(bulk("Cu", cubic=True) * (4, 4, 4), EMT(), steps=1, fmax=1e-9)
    assert result.optimizer == "lbfgs"


def test_callback_sees_each_step() -> None:
    seen = []
    result = relax(dimer(), lennard_jones(), fmax=1e-4, callback=seen.append)
    assert [step.step for step in seen] == list(range(result.steps + 1))
    assert seen[0].energy == result.initial_energy
    assert (seen[-1].energy, seen[-1].fmax) == (result.energy, result.fmax)


@pytest.mark.parametrize("name", ["path.traj", "path.xyz"])
def test_trajectory_has_every_step(tmp_path, name: str) -> None:
    result = relax(dimer(), lennard_jones(), fmax=1e-4, trajectory=tmp_path / name)
    frames = read(tmp_path / name, index=":")
    assert len(frames) == result.steps + 1
    assert frames[-1].get_potential_energy() == pytest.approx(result.energy, abs=1e-7)
    np.testing.assert_allclose(frames[-1].positions, result.atoms.positions, atol=1e-7)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_trajectory_survives_an_interruption(tmp_path) -> None:
    def stop(step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relax(dimer(), lennard_jones(), fmax=1e-9, trajectory=tmp_path / "path.xyz", callback=stop)
    assert len(read(tmp_path / "path.xyz", index=":")) == 4
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmax": -0.1}, "`fmax` is -0.1 but must be a positive force"),
        ({"fmax": 0.0}, "`fmax` is 0.0 but must be a positive force"),
        ({"fmax": float("nan")}, "`fmax` is nan but must be a positive force"),
        ({"steps": -1}, "`steps` is -1 but must be 0 or more"),
        ({"optimizer": "bgfs"}, '`optimizer` is "bgfs" but must be one of: auto, internal, bfgs, lbfgs'),
        ({"pressure_gpa": 1.0}, "a pressure of 1.0 GPa acts on the cell, which is kept"),
        ({"pressure_gpa": float("inf")}, "`pressure_gpa` is inf but must be a number"),
        ({"cell": True}, "not periodic in three directions"),
        ({"trajectory": "missing/a.traj"}, "the folder of the trajectory"),
        ({"trajectory": "a.pdf"}, "the trajectory a.pdf has an unknown ending: use .traj, .xyz, .extxyz"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        relax(molecule("H2O"), EMT(), **options)


class Collapsing(LennardJones):
    """Refuses once atoms have come close, as a potential does when they coincide."""

    def calculate(self, atoms, properties, system_changes) -> None:
        if atoms.get_distance(0, 1) < 1.15:
            raise InputError("atoms 0 and 1 are too close")
        super().calculate(atoms, properties, system_changes)


@pytest.mark.parametrize("optimizer", ["internal", "bfgs"])
def test_a_relaxation_that_runs_away_keeps_the_last_good_place(tmp_path, optimizer: str) -> None:
    calculator = Collapsing(sigma=1.0, epsilon=1.0, rc=50.0)
    result = relax(dimer(), calculator, fmax=1e-5, optimizer=optimizer, trajectory=tmp_path / "path.xyz")
    assert not result.converged
    assert re.match(r"ran away in step \d+: atoms 0 and 1 are too close \(the model may not", result.message)
    assert result.atoms.get_distance(0, 1) >= 1.15
    assert result.energy <= result.initial_energy
    fresh = result.atoms.copy()
    fresh.calc = lennard_jones()
    assert result.energy == pytest.approx(fresh.get_potential_energy(), abs=1e-10)
    assert result.atoms.get_potential_energy() == result.energy
    assert result.fmax == pytest.approx(np.linalg.norm(fresh.get_forces(), axis=1).max(), abs=1e-10)
    assert len(read(tmp_path / "path.xyz", index=":")) >= 1
    assert relax(dimer(), lennard_jones(), optimizer=optimizer).message == ""


def test_a_start_that_cannot_be_evaluated_is_refused() -> None:
    calculator = Collapsing(sigma=1.0, epsilon=1.0, rc=50.0)
    close = Atoms("Ar2", positions=[[0, 0, 0], [1.1, 0, 0]])
    for optimizer in ("internal", "bfgs"):
        with pytest.raises(InputError, match=r"^atoms 0 and 1 are too close$"):
            relax(close, calculator, optimizer=optimizer)


def test_no_atoms() -> None:
    with pytest.raises(InputError, match="no atoms"):
        relax(Atoms(), EMT())
