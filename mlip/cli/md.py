"""`mlip md`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import numpy as np
import typer

from mlip.cli import EXIT_NOT_CONVERGED
from mlip.cli.calculator_choice import about_model, model_digest
from mlip.cli.interruption import SIGNALLED, Interruption
from mlip.cli.structure_files import check_writable, read_structures
from mlip.dynamics.records import DynamicsFiles
from mlip.dynamics.run import check_dynamics, molecular_dynamics
from mlip.dynamics.settings import DynamicsSettings, settle
from mlip.dynamics.simulation import (
    FEMTOSECONDS_PER_NANOSECOND,
    SECONDS_PER_DAY,
    DynamicsResult,
    DynamicsStep,
)
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.calculators import MLIPCalculator


_Number = float | None


def md(
    structure: Annotated[Path, typer.Argument(metavar="STRUCT", help="One structure, any format of ASE.")],
    steps: Annotated[int, typer.Option(help="Steps of the whole run.", show_default=False)],
    ensemble: Annotated[str, typer.Option(help="nve, nvt or npt.")] = "nvt",
    temperature: Annotated[_Number, typer.Option(metavar="K", help="K; nve: of initial velocities.")] = None,
    pressure: Annotated[_Number, typer.Option(metavar="GPA", help="GPa; npt.  [default: 0]")] = None,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Time step, fs.")] = 0.5,
    thermostat: Annotated[str | None, typer.Option(help="bussi or langevin; nvt.  [default: bussi]")] = None,
    friction: Annotated[
        _Number, typer.Option(metavar="1/FS", help="Friction of langevin, 1/fs.  [default: 0.01]")
    ] = None,
    thermostat_time: Annotated[
        _Number, typer.Option(metavar="FS", help="Of bussi and of npt, fs.  [default: 100]")
    ] = None,
    barostat_time: Annotated[_Number, typer.Option(metavar="FS", help="Of npt, fs.  [default: 1000]")] = None,
    cell: Annotated[
        str | None,
        typer.Option(help="npt changes the volume (isotropic) or all (full).  [default: isotropic]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initial velocities and thermostat.")] = 0,
    interval: Annotated[int, typer.Option(help="Steps between two frames and rows.")] = 10,
    checkpoint: Annotated[int, typer.Option(help="Steps between two checkpoints.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trajectory; default STRUCT-md.xyz beside the input.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of another run.")] = False,
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
) -> None:
    """Simulate molecules, liquids and crystals.

    At constant energy (nve: velocity Verlet), temperature (nvt: Bussi or Langevin), or temperature and
    pressure (npt: Martyna-Tobias-Klein).

    Initial velocities are those of the structure, or drawn from the Maxwell-Boltzmann distribution; the
    centre of mass is put to rest unless atoms are fixed. Beside the trajectory (extended XYZ) a table (.csv),
    a picture (.png) and a .checkpoint are written. Ctrl-C and SIGTERM stop the run after the step; with
    --resume, and a larger --steps if you like, it goes on exactly as if it had not stopped (on CPU).

    Exits 0 when all steps are done, 3 when atoms collide or the energy runs away (what was computed is kept),
    2 when something given cannot be used, 128 + n after signal n.
    """
    settings = settle(DynamicsSettings(
        ensemble=ensemble, temperature=temperature, pressure_gpa=pressure, timestep=timestep, seed=seed,
        thermostat=thermostat, friction=friction, thermostat_time=thermostat_time,
        barostat_time=barostat_time, cell=cell,
    ))  # fmt: skip
    atoms = _read(structure)
    files = DynamicsFiles(trajectory=out or structure.with_name(f"{structure.stem}-md.xyz"))
    options = _Options(steps=steps, interval=interval, checkpoint_interval=checkpoint, resume=resume,
                       overwrite=force)  # fmt: skip
    _check(structure, atoms, settings, files, options)
    calculator, identity = _calculator(model, device, dtype)
    with Interruption() as interruption, _progress(structure.name, steps, timestep) as show:
        result = molecular_dynamics(
            atoms, calculator, settings, **options, trajectory=files.trajectory, identity=identity,
            callback=show, should_stop=interruption,
        )  # fmt: skip
    if as_json:
        print(json.dumps(_report(structure, files, result, calculator, model, steps), indent=2))
    else:
        print(_line(structure, files, result, steps))
    _conclude(result, files, steps, interruption)


class _Options(TypedDict):
    """Passed on as they are."""

    steps: int
    interval: int
    checkpoint_interval: int
    resume: bool
    overwrite: bool


def _check(
    structure: Path, atoms: Atoms, settings: DynamicsSettings, files: DynamicsFiles, options: _Options
) -> None:
    """Everything that can be refused before a model is loaded."""
    files.check()
    for path in files.all():
        check_writable(path, inputs=[structure])
    check_dynamics(atoms, settings, files=files, **options)


def _conclude(result: DynamicsResult, files: DynamicsFiles, steps: int, interruption: Interruption) -> None:
    """What is to be said on stderr, and the exit status."""
    if not result.picture:
        print('no picture: Matplotlib is missing: pip install "polyad[train]"', file=sys.stderr)
    if result.status == "runaway":
        print(
            f"stopped: {result.message}; the time step may be too long, or the model may not describe this "
            f"structure ({files.trajectory} shows the way there)",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_NOT_CONVERGED)
    if result.status == "interrupted":
        print(
            f"stopped: {result.step} of {steps} steps done; go on with the same command and --resume",
            file=sys.stderr,
        )
        raise typer.Exit(SIGNALLED + interruption.number)


def _read(path: Path) -> Atoms:
    frames = read_structures(path)
    if len(frames) > 1:
        raise InputError(f"{path}: holds {len(frames)} structures, but one is to be simulated: give one")
    return frames[0]


def _calculator(model: str, device: str, dtype: str) -> tuple[MLIPCalculator, dict[str, Any]]:
    """The potential, and what makes sure that a resume runs on the same."""
    from mlip.calculators import MLIPCalculator

    calculator = MLIPCalculator(model, device=device, dtype=dtype)
    return calculator, {"model": model_digest(model), "dtype": dtype}


@contextmanager
def _progress(label: str, steps: int, timestep: float) -> Iterator[Callable[[DynamicsStep], None] | None]:
    """A live line on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as status:
        started, done = time.monotonic(), 0

        def show(step: DynamicsStep) -> None:
            nonlocal done
            done += 1
            elapsed = max(time.monotonic() - started, 1e-9)
            speed = done * timestep / FEMTOSECONDS_PER_NANOSECOND * SECONDS_PER_DAY / elapsed
            left = int(elapsed / done * (steps - step.step))
            status.update(
                f"{label}  step {step.step}/{steps}  energy {step.energy:.3f} eV  {step.temperature:.0f} K  "
                f"{speed:.3g} ns/day  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
            )

        yield show


def _line(structure: Path, files: DynamicsFiles, result: DynamicsResult, steps: int) -> str:
    done = f"{result.step} steps" if result.status == "completed" else f"{result.step} of {steps} steps"
    time_ps = result.step * result.settings.timestep / 1000.0
    temperature = result.table["temperature_K"]
    parts = [
        f"{structure}: {done} ({time_ps:g} ps, {result.settings.ensemble})",
        f"{temperature.mean():.1f} ± {temperature.std():.1f} K",
    ]
    pressure = result.table["pressure_GPa"]
    if np.isfinite(pressure).all():
        parts.append(f"{pressure.mean():.3f} ± {pressure.std():.3f} GPa")
    if result.drift is not None:
        parts.append(f"drift {1000.0 * result.drift:+.3g} meV/atom/ps")
    parts.append(f"{result.ns_per_day:.3g} ns/day -> {files.trajectory}, {files.table.name}")
    return ", ".join(parts) + (f", {files.picture.name}" if result.picture else "")


def _report(
    structure: Path,
    files: DynamicsFiles,
    result: DynamicsResult,
    calculator: MLIPCalculator,
    model: str,
    steps: int,
) -> dict[str, Any]:
    import dataclasses

    import mlip

    def spread(name: str) -> dict[str, float] | None:
        values = result.table[name]
        if not np.isfinite(values).all():
            return None
        return {"mean": float(values.mean()), "standard_deviation": float(values.std())}

    return {
        "command": "md",
        "mlip_version": mlip.__version__,
        **about_model(model, calculator.parameters["dtype"]),
        "device": str(calculator.device),
        "file": str(structure),
        "formula": result.atoms.get_chemical_formula(),
        "atoms": len(result.atoms),
        **dataclasses.asdict(result.settings),
        "steps_asked": steps,
        "steps": result.step,
        "status": result.status,
        "message": result.message,
        "degrees_of_freedom": result.degrees_of_freedom,
        "temperature_K": spread("temperature_K"),
        "pressure_GPa": spread("pressure_GPa"),
        "volume_A3": spread("volume_A3"),
        "potential_eV": spread("potential_eV"),
        "drift_eV_per_atom_per_ps": result.drift,
        "ns_per_day": round(result.ns_per_day, 4),
        "seconds": round(result.seconds, 4),
        "trajectory": str(files.trajectory),
        "table": str(files.table),
        "picture": str(files.picture) if result.picture else None,
        "checkpoint": str(files.checkpoint),
    }
