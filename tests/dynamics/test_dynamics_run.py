"""Runs of molecular dynamics: files, resume, runaway, refusals."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixedMode
from ase.io import read

from mlip.dynamics.records import COLUMNS, read_table
from mlip.dynamics.run import molecular_dynamics
from mlip.dynamics.settings import DynamicsSettings
from mlip.errors import InputError

ENSEMBLES = {
    "nve": DynamicsSettings(ensemble="nve", temperature=300.0, timestep=2.0),
    "bussi": DynamicsSettings(temperature=300.0, timestep=2.0),
    "langevin": DynamicsSettings(temperature=300.0, timestep=2.0, thermostat="langevin"),
    "isotropic": DynamicsSettings(ensemble="npt", temperature=300.0, timestep=2.0, pressure_gpa=1.0),
    "full": DynamicsSettings(ensemble="npt", temperature=300.0, timestep=2.0, cell="full"),
}
FILES = (".xyz", ".csv", ".checkpoint")


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than most of these runs; `test_files` has it."""
    if request.node.name != "test_files":
        monkeypatch.setattr("mlip.dynamics.simulation.draw", lambda *arguments, **named: True)


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=1)
    return atoms


class Fresh(EMT):
    """Forgets its neighbour list, so that results depend on the structure alone."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        self.nl = None
        self.initialize(atoms)
        super().calculate(atoms, properties, system_changes)


def after(calls: int):
    """Asks to stop when asked for the `calls`-th time."""
    counter = itertools.count()
    return lambda: next(counter) >= calls


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_resumed_run_is_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    """Interrupted between two checkpoints, then killed after another, extended, with a new calculator."""
    settings, start = ENSEMBLES[name], copper()
    options = {"interval": 3, "checkpoint_interval": 8}
    whole = molecular_dynamics(
        start, Fresh(), settings, steps=40, trajectory=tmp_path / "whole.xyz", **options
    )
    part = {"trajectory": tmp_path / "part.xyz", **options}
    stopped = molecular_dynamics(start, Fresh(), settings, steps=25, should_stop=after(13), **part)
    assert (stopped.status, stopped.step) == ("interrupted", 13)

    class Killed(Exception):
        pass

    def kill(step) -> None:
        if step.step == 20:
            raise Killed

    with pytest.raises(Killed):
        molecular_dynamics(start, Fresh(), settings, steps=25, callback=kill, resume=True, **part)
    short = molecular_dynamics(start, Fresh(), settings, steps=25, resume=True, **part)
    assert (short.status, short.step, short.steps_now) == ("completed", 25, 9)
    done = molecular_dynamics(start, Fresh(), settings, steps=40, resume=True, **part)
    for suffix in FILES:
        assert (tmp_path / f"part{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    np.testing.assert_array_equal(done.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(done.atoms.get_momenta(), whole.atoms.get_momenta())
    again = molecular_dynamics(start, Fresh(), settings, steps=40, resume=True, **part)
    assert (again.steps_now, again.status) == (0, "completed")
    assert (tmp_path / "part.xyz").read_bytes() == (tmp_path / "whole.xyz").read_bytes()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "run.xyz"
    result = molecular_dynamics(
        copper(), EMT(), ENSEMBLES["isotropic"], steps=10, interval=4, trajectory=path
    )
    frames, table = read(path, index=":"), read_table(tmp_path / "run.csv")
    assert list(table) == list(COLUMNS)
    np.testing.assert_array_equal(table["step"], [0, 4, 8, 10])
    np.testing.assert_array_equal(table["time_fs"], [0, 8, 16, 20])
    assert [frame.info["step"] for frame in frames] == [0, 4, 8, 10]
    for frame, energy, volume, kinetic in zip(
        frames, table["potential_eV"], table["volume_A3"], table["kinetic_eV"], strict=True
    ):
        assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        assert frame.cell.volume == pytest.approx(volume, abs=1e-5)
        assert frame.get_kinetic_energy() == pytest.approx(kinetic, abs=1e-5)
        fresh = frame.copy()
        fresh.calc = EMT()
        np.testing.assert_allclose(fresh.get_forces(), frame.get_forces(), atol=1e-4)
    np.testing.assert_array_equal(result.table["step"], table["step"])
    fresh = result.atoms.copy()
    fresh.calc = EMT()
    expected = -fresh.get_stress(include_ideal_gas=True)[:3].mean() / 0.006241509125883258
    assert table["pressure_GPa"][-1] == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert result.picture
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.checkpoint", "run.csv", "run.png", "run.xyz"]


def test_files_of_another_run_are_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "run.xyz"
    run = {"steps": 2, "interval": 1, "trajectory": path}
    molecular_dynamics(copper(), EMT(), ENSEMBLES["nve"], **run)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"run\.xyz exists already: continue that run with --resume"):
        molecular_dynamics(copper(), EMT(), ENSEMBLES["bussi"], **run)
    assert path.read_bytes() == before
    molecular_dynamics(copper(), EMT(), ENSEMBLES["bussi"], overwrite=True, **run)
    assert len(read(path, index=":")) == 3


def test_nothing_is_written_without_a_trajectory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = molecular_dynamics(molecule("CH3CH2OH"), EMT(), ENSEMBLES["bussi"], steps=4, interval=2)
    assert list(tmp_path.iterdir()) == []
    assert len(result.table["step"]) == 3
    assert np.isnan(result.table["pressure_GPa"]).all()
    assert not result.picture


def test_interrupted_before_the_first_step(tmp_path: Path) -> None:
    run = {"steps": 5, "trajectory": tmp_path / "run.xyz"}
    result = molecular_dynamics(copper(), EMT(), ENSEMBLES["nve"], should_stop=lambda: True, **run)
    assert (result.status, result.step, result.ns_per_day) == ("interrupted", 0, 0.0)
    assert molecular_dynamics(copper(), EMT(), ENSEMBLES["nve"], resume=True, **run).step == 5


def argon(distance: float) -> Atoms:
    return Atoms("Ar2", positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])


class Hole(LennardJones):
    """Attracts ever more strongly, as models do where they saw no data; refuses atoms that coincide."""

    refuses = 0.0

    def calculate(self, atoms, properties, system_changes) -> None:
        vector = atoms.positions[1] - atoms.positions[0]
        distance = np.linalg.norm(vector)
        if distance < self.refuses:
            raise InputError("atoms 0 and 1 are too close")
        pull = self.strength * vector / distance
        self.results = {"energy": self.strength * distance, "forces": np.array([pull, -pull])}


def hole(strength: float, refuses: float = 0.0) -> Hole:
    calculator = Hole()
    calculator.strength, calculator.refuses = strength, refuses
    return calculator


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        (hole(0.3), r"in step \d+, atoms 0 \(Ar\) and 1 \(Ar\) collided: they are 0\.\d+ Å apart"),
        (hole(5.0), r"in step \d+, the temperature rose to \d+ K, above 10000 K"),
        (hole(0.3, refuses=2.0), r"in step \d+, atoms 0 and 1 are too close"),
        (LennardJones(sigma=3.4, epsilon=0.0104), "temperature rose to"),
    ],
)
def test_runaway_stops_and_keeps_everything(calculator, message: str, tmp_path: Path) -> None:
    start, path = argon(3.0), tmp_path / "run.xyz"
    timestep = 500.0 if type(calculator) is LennardJones else 2.0
    settings = DynamicsSettings(ensemble="nve", temperature=10.0, timestep=timestep)
    result = molecular_dynamics(start, calculator, settings, steps=3000, interval=1, trajectory=path)
    assert result.status == "runaway"
    assert re.search(message, result.message)
    frames = read(path, index=":")
    assert len(frames) == len(result.table["step"]) == result.step + 1
    assert 1 <= result.step < 3000
    assert result.picture
    np.testing.assert_allclose(frames[-1].positions, result.atoms.positions, atol=1e-7)


@pytest.mark.parametrize("cell", ["isotropic", "full"])
def test_a_cell_that_runs_away(cell: str) -> None:
    """The integrator itself may be the first to fail."""
    settings = DynamicsSettings(
        ensemble="npt", temperature=300.0, timestep=5.0, barostat_time=0.1, pressure_gpa=-200.0, cell=cell
    )
    result = molecular_dynamics(copper(), EMT(), settings, steps=200)
    assert result.status == "runaway"
    assert result.message.startswith("in step ")


def test_momenta_of_fixed_atoms_do_not_count() -> None:
    """A frame of a run without constraints, whose first atoms are fixed from then on."""
    atoms = fixed([0, 1])
    velocities = np.random.default_rng(0).normal(size=(4, 3)) * 0.02
    settings = DynamicsSettings(ensemble="nve", timestep=1.0)
    temperatures = []
    for held in (velocities[:2], np.zeros((2, 3))):
        start = atoms.copy()
        momenta = np.concatenate([held, velocities[2:]]) * atoms.get_masses()[:, None]
        start.set_momenta(momenta, apply_constraint=False)
        result = molecular_dynamics(start, EMT(), settings, steps=2, interval=1)
        temperatures.append(result.table["temperature_K"])
    np.testing.assert_array_equal(*temperatures)


def test_energy_that_runs_away() -> None:
    """A thermostat may hide in the temperature what the potential energy shows."""

    class Falling(EMT):
        fallen = 0.0

        def calculate(self, *arguments, **named) -> None:
            super().calculate(*arguments, **named)
            self.fallen += 5.0
            self.results["energy"] -= self.fallen

    result = molecular_dynamics(copper(), Falling(), ENSEMBLES["bussi"], steps=50)
    assert result.message == "in step 9, the potential energy changed by -11.2 eV per atom since the start"

    class Undefined(EMT):
        def calculate(self, *arguments, **named) -> None:
            super().calculate(*arguments, **named)
            if self.atoms.get_momenta().any():
                self.results["energy"] = float("nan")

    with pytest.raises(InputError, match="cannot start: the potential energy is nan eV"):
        molecular_dynamics(copper(), Undefined(), ENSEMBLES["bussi"], steps=50)


def test_colliding_start() -> None:
    message = "atoms 0 (Ar) and 1 (Ar) collided: they are 0.500 Å apart at the start: mend the structure"
    with pytest.raises(InputError, match=re.escape(message)):
        molecular_dynamics(argon(0.5), LennardJones(), ENSEMBLES["nve"], steps=1)


def fixed(indices: list[int]) -> Atoms:
    atoms = copper()
    atoms.set_constraint(FixAtoms(indices))
    return atoms


def with_mode() -> Atoms:
    atoms = copper()
    atoms.set_constraint(FixedMode(np.ones((4, 3))))
    return atoms


def moving(value: float = 1.0) -> Atoms:
    atoms = copper()
    atoms.set_momenta(np.eye(4, 3) * value)
    return atoms


def drifting() -> Atoms:
    atoms = copper()
    atoms.set_velocities(np.full((4, 3), 0.01))
    return atoms


def weightless() -> Atoms:
    atoms = copper()
    atoms.set_masses([1.0, 0.0, 1.0, 1.0])
    return atoms


@pytest.mark.parametrize(
    ("atoms", "changes", "message"),
    [
        (copper(), {"ensemble": "nph"}, '`ensemble` is "nph" but must be one of: nve, nvt, npt'),
        (copper(), {"temperature": None}, 'the ensemble "nvt" needs a temperature in K'),
        (copper(), {"temperature": -1.0}, "`temperature` is -1.0 but must be positive, K"),
        (copper(), {"temperature": float("inf")}, "`temperature` is inf but must be positive"),
        (copper(), {"timestep": 0.0}, "`timestep` is 0.0 but must be a positive time in fs"),
        (copper(), {"timestep": float("nan")}, "`timestep` is nan but must be a positive time"),
        (copper(), {"thermostat": "nose"}, '`thermostat` is "nose" but must be one of: bussi, langevin'),
        (copper(), {"friction": 0.1}, '`friction` is 0.1 but the thermostat "bussi" has none: use `thermo'),
        (
            copper(),
            {"thermostat": "langevin", "thermostat_time": 5.0},
            '`thermostat_time` is 5.0 but the thermostat "langevin" has none: use `friction`',
        ),
        (copper(), {"thermostat": "langevin", "friction": -0.1}, "`friction` is -0.1 but must be a positive"),
        (copper(), {"thermostat_time": 0.0}, "`thermostat_time` is 0.0 but must be a positive time"),
        (copper(), {"pressure_gpa": 1.0}, '`pressure_gpa` is 1.0 but has no meaning in the ensemble "nvt"'),
        (copper(), {"barostat_time": 1.0}, "`barostat_time` is 1.0 but has no meaning"),
        (copper(), {"cell": "full"}, "`cell` is full but has no meaning"),
        (copper(), {"ensemble": "npt", "cell": "cubic"}, '`cell` is "cubic" but must be one of: isotropic'),
        (copper(), {"ensemble": "npt", "thermostat": "bussi"}, "`thermostat` is bussi but has no meaning"),
        (copper(), {"ensemble": "npt", "pressure_gpa": float("nan")}, "`pressure_gpa` is nan but must be"),
        (copper(), {"ensemble": "nve", "friction": 1.0}, "`friction` is 1.0 but has no meaning"),
        (copper(), {"seed": -1}, "`seed` is -1 but must be 0 or more"),
        (Atoms(), {}, "the structure has no atoms"),
        (Atoms("Cu"), {}, "the 1 atom(s) of the structure have no degree of freedom left"),
        (fixed([0, 1, 2, 3]), {}, "have no degree of freedom left"),
        (fixed([0]), {"ensemble": "npt"}, "the structure has fixed atoms or other constraints: use nvt"),
        (with_mode(), {}, "the constraint FixedMode, which dynamics cannot honour"),
        (molecule("H2O"), {"ensemble": "npt"}, "not periodic in three directions"),
        (
            copper(),
            {"ensemble": "nve", "temperature": None},
            "the structure has no velocities: give the temp",
        ),
        (moving(), {"ensemble": "nve"}, "the structure has velocities, which are kept, so that"),
        (moving(float("nan")), {}, "velocities are not all finite"),
        (drifting(), {}, "velocities are those of its centre of mass and of fixed atoms"),
        (drifting(), {"ensemble": "nve", "temperature": None}, "nothing would move"),
        (weightless(), {}, "atom 1 has the mass 0.0 but must have a positive one"),
    ],
)
def test_bad_settings_and_structures(atoms: Atoms, changes: dict, message: str) -> None:
    settings = dataclasses.replace(DynamicsSettings(temperature=300.0), **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        molecular_dynamics(atoms, EMT(), settings, steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "`steps` is -1 but must be 0 or more"),
        ({"interval": 0}, "`interval` is 0 but must be 1 or more steps"),
        ({"checkpoint_interval": 0}, "`checkpoint_interval` is 0 but must be 1 or more"),
        ({"trajectory": "a.pdf"}, "the trajectory a.pdf has an unknown ending: use .xyz or .extxyz"),
        ({"trajectory": "missing/a.xyz"}, "missing, does not exist: create it first"),
        ({"resume": True}, "there is nothing to resume without a trajectory"),
        ({"resume": True, "overwrite": True, "trajectory": "a.xyz"}, "give one of them"),
        ({"resume": True, "trajectory": "a.xyz"}, "nothing to resume: a.checkpoint does not exist"),
    ],
)
def test_bad_options(options: dict, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        molecular_dynamics(copper(), EMT(), ENSEMBLES["bussi"], **{"steps": 1, **options})
    assert list(tmp_path.iterdir()) == []


def test_stress_is_needed_for_constant_pressure() -> None:
    class Stressless(EMT):
        implemented_properties = ("energy", "forces")

    with pytest.raises(InputError, match='"npt" needs stresses, which Stressless does not compute'):
        molecular_dynamics(copper(), Stressless(), ENSEMBLES["isotropic"], steps=1)
    result = molecular_dynamics(copper(), Stressless(), ENSEMBLES["nve"], steps=1)
    assert np.isnan(result.table["pressure_GPa"]).all()


def test_a_resume_that_would_be_another_run(tmp_path: Path) -> None:
    path = tmp_path / "run.xyz"
    settings, run = ENSEMBLES["bussi"], {"trajectory": path, "identity": {"model": "a"}}
    molecular_dynamics(copper(), EMT(), settings, steps=4, **run)

    def refused(atoms: Atoms = copper(), settings=settings, **changes) -> str:  # noqa: B008
        with pytest.raises(InputError) as caught:
            molecular_dynamics(atoms, EMT(), settings, **{"steps": 8, "resume": True, **run, **changes})
        return str(caught.value)

    assert "started with `seed` 0, now it is 1" in refused(settings=dataclasses.replace(settings, seed=1))
    hotter = dataclasses.replace(settings, temperature=301.0)
    assert "started with `temperature` 300.0, now it is 301.0" in refused(settings=hotter)
    assert "started with `interval` 10, now it is 5" in refused(interval=5)
    assert "started with `model` a, now it is b" in refused(identity={"model": "b"})
    assert "started with `structure`" in refused(fixed([0]))
    assert "4 steps are done already, more than 3" in refused(steps=3)
    checkpoint = tmp_path / "run.checkpoint"
    content = checkpoint.read_bytes()
    for damaged in (b"", content[:-5], b"x" * 100):
        checkpoint.write_bytes(damaged)
        assert "is not a readable checkpoint" in refused()
    checkpoint.write_bytes(content)
    table = tmp_path / "run.csv"
    table.write_bytes(table.read_bytes()[:20])
    assert "run.csv no longer holds what it did at the checkpoint" in refused()
    table.unlink()
    assert "run.csv no longer holds" in refused()
