"""A run of molecular dynamics between its files and its integrator."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.dynamics.checkpoint import Checkpoint, save_checkpoint
from mlip.dynamics.freedom import degrees_of_freedom, settle_momenta, temperature_of, thermal_momenta
from mlip.dynamics.integrators import Integrator, make_integrator
from mlip.dynamics.picture import draw
from mlip.dynamics.records import COLUMNS, DynamicsFiles, Recorder, read_table
from mlip.dynamics.runaway import Watch, collision
from mlip.dynamics.settings import DynamicsSettings, has_velocities
from mlip.errors import InputError
from mlip.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

FEMTOSECONDS_PER_NANOSECOND: Final = 1.0e6
SECONDS_PER_DAY: Final = 86_400.0

_KEPT: Final = ("energy", "forces", "stress")


@dataclass(frozen=True, kw_only=True)
class DynamicsStep:
    """What a callback sees after each step: its number, potential energy in eV, temperature in K."""

    step: int
    energy: float
    temperature: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DynamicsResult:
    """The end of a simulation.

    Attributes:
        atoms: The last structure, with velocities; its `calc` holds energy, forces and, where there is one,
            stress.
        status: "completed", "runaway", or "interrupted" by `should_stop`.
        message: What ran away, or empty.
        step: Steps done, those before a resume included.
        settings: The settled settings.
        degrees_of_freedom: That the temperature is counted with.
        table: Columns by name (`mlip.dynamics.records.COLUMNS`) of all recorded steps; NaN where there is no
            such number.
        drift: Slope of the conserved energy, eV per atom per ps (least squares); None where it is not known.
        picture: Whether the picture was drawn.
        steps_now: Steps of this call.
        seconds: Wall time of these.
    """

    atoms: Atoms
    status: str
    message: str
    step: int
    settings: DynamicsSettings
    degrees_of_freedom: int
    table: dict[str, np.ndarray]
    drift: float | None
    picture: bool
    steps_now: int
    seconds: float

    @property
    def ns_per_day(self) -> float:
        """Simulated nanoseconds per day of wall time, of this call."""
        simulated = self.steps_now * self.settings.timestep / FEMTOSECONDS_PER_NANOSECOND
        return simulated * SECONDS_PER_DAY / self.seconds if self.seconds > 0.0 else 0.0


class Simulation:
    """A run between its files and its integrator."""

    def __init__(
        self,
        atoms: Atoms,
        calculator: BaseCalculator,
        settings: DynamicsSettings,
        run: dict[str, Any],
        interval: int,
        files: DynamicsFiles | None,
    ) -> None:
        self.settings, self._run, self._interval, self._files = settings, run, interval, files
        self._constraints = atoms.copy().constraints
        self._freedom = degrees_of_freedom(atoms)
        self._random = np.random.default_rng(settings.seed)
        self.atoms: Atoms = atoms.copy()
        self.atoms.calc = calculator
        self.atoms.set_positions(self.atoms.get_positions())  # constraints learn what they shall keep
        if has_velocities(self.atoms):
            settle_momenta(self.atoms)
        else:
            assert settings.temperature is not None
            thermal_momenta(self.atoms, settings.temperature, self._random)
        able = "stress" in getattr(calculator, "implemented_properties", ())
        self._stress = bool(self.atoms.pbc.all() and self.atoms.cell.rank == 3 and able)
        if settings.ensemble == "npt" and not able:
            raise InputError(
                f'the ensemble "npt" needs stresses, which {type(calculator).__name__} does not compute'
            )
        self._integrator: Integrator = make_integrator(self.atoms, settings, self._random)
        self._rows: list[dict[str, float | None]] = []

    def begin(self, loaded: Checkpoint | None) -> None:
        """Evaluate the first structure, or that of the checkpoint."""
        if loaded is None:
            if (trouble := collision(self.atoms)) is not None:
                raise InputError(f"{trouble} at the start: mend the structure, for instance by `mlip relax`")
        else:
            self._integrator.restore(loaded.arrays)
            self._random.bit_generator.state = loaded.random
        self.step = 0 if loaded is None else loaded.step
        if self._stress:  # first of all, so that a calculator computes the same as in the steps that follow
            self.atoms.get_stress()
        energy, temperature = float(self.atoms.get_potential_energy()), self._temperature()
        self._reference = (
            (energy, max(temperature, self.settings.temperature or 0.0))
            if loaded is None
            else loaded.reference
        )
        self._watch = Watch(len(self.atoms), *self._reference)
        if (trouble := self._watch.verdict(energy, temperature)) is not None:
            raise InputError(f"the simulation cannot start: {trouble}")
        self._resumed = loaded is not None
        self._last = self._frame()

    def run(
        self,
        recorder: Recorder | None,
        steps: int,
        checkpoint_interval: int,
        callback: Callable[[DynamicsStep], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> DynamicsResult:
        """All steps, and the result."""
        if not self._resumed:
            self._record(recorder)
            self._save(recorder)
        started, first = time.perf_counter(), self.step
        status, message = "completed", ""
        while self.step < steps:
            if should_stop is not None and should_stop():
                status = "interrupted"
                break
            message, whole = self._advance(callback)
            if message:
                status = "runaway"
                if whole:
                    self._record(recorder)  # where it led
                break
            if self.step % self._interval == 0:
                self._record(recorder)
            if self.step % checkpoint_interval == 0:
                self._save(recorder)
        seconds = time.perf_counter() - started
        if status != "runaway":
            self._save(recorder)
            self._last = self._frame()
        if status == "completed" and self.step % self._interval:
            self._record(recorder)  # a resume, which goes on from the checkpoint, takes this frame away
        return self._result(status, message, self.step - first, seconds)

    def _advance(self, callback: Callable[[DynamicsStep], None] | None) -> tuple[str, bool]:
        """One step; says what is wrong after it, if anything, and whether there is a structure to show."""
        try:
            self._integrator.step()
            energy, temperature = float(self.atoms.get_potential_energy()), self._temperature()
        except (
            InputError,
            ArithmeticError,
            ValueError,
        ) as error:  # integrators and calculators have their own
            return f"in step {self.step + 1}, {error}", False
        self.step += 1
        trouble = self._watch.verdict(energy, temperature)
        if trouble is None and self.step % self._interval == 0:
            trouble = collision(self.atoms)
        if trouble is not None:
            finite = np.isfinite(energy) and np.isfinite(self.atoms.get_forces()).all()
            return f"in step {self.step}, {trouble}", bool(finite)
        if callback is not None:
            callback(DynamicsStep(step=self.step, energy=energy, temperature=temperature))
        return "", True

    def _temperature(self) -> float:
        return temperature_of(self.atoms, self._freedom)

    def _record(self, recorder: Recorder | None) -> None:
        """One row and one frame."""
        potential, kinetic = float(self.atoms.get_potential_energy()), float(self.atoms.get_kinetic_energy())
        periodic = bool(self.atoms.pbc.all() and self.atoms.cell.rank == 3)
        volume = float(self.atoms.cell.volume) if periodic else None
        pressure = None
        if self._stress and volume is not None:
            virial = -float(self.atoms.get_stress(apply_constraint=False)[:3].mean())
            pressure = (virial + 2.0 * kinetic / (3.0 * volume)) / GPA
        row: dict[str, float | None] = {
            "step": self.step,
            "time_fs": self.step * self.settings.timestep,
            "potential_eV": potential,
            "kinetic_eV": kinetic,
            "total_eV": potential + kinetic,
            "conserved_eV": self._integrator.conserved(),
            "temperature_K": self._temperature(),
            "pressure_GPa": pressure,
            "volume_A3": volume,
        }
        self._last = self._frame()
        if recorder is None:
            self._rows.append(row)
        else:
            recorder.append(row, self._last)

    def _frame(self) -> Atoms:
        """The structure with its own constraints and the numbers last computed."""
        from ase.calculators.singlepoint import SinglePointCalculator

        frame: Atoms = self.atoms.copy()
        frame.set_constraint(self._constraints)
        results = {key: value for key, value in self.atoms.calc.results.items() if key in _KEPT}
        frame.calc = SinglePointCalculator(frame, **results)
        frame.info.update(step=self.step, time_fs=self.step * self.settings.timestep)
        return frame

    def _save(self, recorder: Recorder | None) -> None:
        if recorder is None or self._files is None:
            return
        save_checkpoint(
            self._files.checkpoint,
            Checkpoint(
                step=self.step,
                run=self._run,
                arrays=self._integrator.state(),
                random=dict(self._random.bit_generator.state),
                sizes=recorder.sizes(),
                reference=self._reference,
            ),
        )

    def _result(self, status: str, message: str, steps_now: int, seconds: float) -> DynamicsResult:
        if self._files is not None:
            table = read_table(self._files.table)
        else:
            table = {
                name: np.array(
                    [np.nan if row[name] is None else row[name] for row in self._rows], dtype=float
                )
                for name in COLUMNS
            }
        title = f"{self._last.get_chemical_formula()}, {self.settings.ensemble}"
        return DynamicsResult(
            atoms=self._last,
            status=status,
            message=message,
            step=self.step,
            settings=self.settings,
            degrees_of_freedom=self._freedom,
            table=table,
            drift=_slope(table, len(self.atoms)),
            picture=self._files is not None and draw(table, self._files.picture, title=title),
            steps_now=steps_now,
            seconds=seconds,
        )


def _slope(table: dict[str, np.ndarray], atoms: int) -> float | None:
    """Of the conserved energy, eV per atom per ps."""
    time_ps, energy = table["time_fs"] / 1000.0, table["conserved_eV"]
    if len(time_ps) < 2 or not np.isfinite(energy).all():
        return None
    time_ps = time_ps - time_ps.mean()
    return float(time_ps @ (energy - energy.mean()) / (time_ps @ time_ps)) / atoms
