"""Molecular dynamics as one function."""

from __future__ import annotations

import dataclasses
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip.dynamics.checkpoint import check_same_run, fingerprint, load_checkpoint
from mlip.dynamics.records import DynamicsFiles, Recorder
from mlip.dynamics.settings import DynamicsSettings, check_structure, settle
from mlip.dynamics.simulation import DynamicsResult, DynamicsStep, Simulation
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator


def molecular_dynamics(
    atoms: Atoms,
    calculator: BaseCalculator,
    settings: DynamicsSettings,
    *,
    steps: int,
    interval: int = 10,
    trajectory: str | Path | None = None,
    checkpoint_interval: int = 1000,
    resume: bool = False,
    overwrite: bool = False,
    identity: Mapping[str, Any] | None = None,
    callback: Callable[[DynamicsStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DynamicsResult:
    """Move a copy of `atoms` by Newton's equations and those of a thermostat and barostat.

    Velocities of the structure are kept, less that of the centre of mass; without any, they are drawn from
    the Maxwell–Boltzmann distribution. Constraints are honoured. Where the calculator is a function of the
    structure alone, bit for bit, as `MLIPCalculator` is on a CPU, a run that was interrupted and resumed
    writes the same bytes as one that was not.

    Args:
        atoms: Where to start; not changed.
        calculator: Any ASE calculator with energy and forces (and stress for "npt").
        settings: The equations of motion.
        steps: Of the whole run, those before a resume included.
        interval: Steps between two frames of the trajectory and rows of the table.
        trajectory: Extended XYZ, written as the run goes; beside it come a table `.csv`, a picture `.png` and
            a `.checkpoint`. Nothing is written without.
        checkpoint_interval: Steps between two checkpoints; there is one at the end, too.
        resume: Go on from the checkpoint; all else must be given as before, but for `steps`.
        overwrite: Replace the files of another run.
        identity: Plain values that must not change between a run and its resume, such as the model's hash.
        callback: Called after each step.
        should_stop: Asked before each step; on True the run ends with a checkpoint.

    Raises:
        InputError: An argument is not as above, or the structure cannot be used.
    """
    settings = settle(settings)
    files = None if trajectory is None else DynamicsFiles(trajectory=Path(trajectory))
    check_dynamics(
        atoms,
        settings,
        steps=steps,
        interval=interval,
        checkpoint_interval=checkpoint_interval,
        files=files,
        resume=resume,
        overwrite=overwrite,
    )
    run = {
        **dataclasses.asdict(settings),
        "interval": interval,
        "structure": fingerprint(atoms),
        **(identity or {}),
    }
    loaded = None
    if resume and files is not None:
        loaded = load_checkpoint(files.checkpoint)
        check_same_run(files.checkpoint, loaded.run, run)
        if loaded.step > steps:
            raise InputError(f"{files.checkpoint}: {loaded.step} steps are done already, more than {steps}")
    simulation = Simulation(atoms, calculator, settings, run, interval, files)
    simulation.begin(loaded)
    recorder = None
    if files is not None:
        if loaded is None:
            for path in files.present():
                path.unlink()
        recorder = Recorder(files, sizes=None if loaded is None else loaded.sizes)
    with nullcontext() if recorder is None else closing(recorder):
        return simulation.run(recorder, steps, checkpoint_interval, callback, should_stop)


def check_dynamics(
    atoms: Atoms,
    settings: DynamicsSettings,
    *,
    steps: int,
    interval: int = 10,
    checkpoint_interval: int = 1000,
    files: DynamicsFiles | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """See, without computing anything, whether `molecular_dynamics` accepts its arguments.

    Raises:
        InputError: It does not.
    """
    settings = settle(settings)
    if steps < 0:
        raise InputError(f"`steps` is {steps} but must be 0 or more")
    for name, value in (("interval", interval), ("checkpoint_interval", checkpoint_interval)):
        if value < 1:
            raise InputError(f"`{name}` is {value} but must be 1 or more steps")
    check_structure(atoms, settings)
    if files is None:
        if resume:
            raise InputError("there is nothing to resume without a trajectory: name that of the run")
        return
    files.check()
    if resume and overwrite:
        raise InputError("--resume continues a run and --force replaces it: give one of them")
    if files.present() and not resume and not overwrite:
        raise InputError(
            f"{files.present()[0]} exists already: continue that run with --resume, choose another --out, "
            "or replace it with --force"
        )
