"""`mlip train`: a potential from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 128
"""Added to the number of the signal that stopped a run, as shells do."""


def train(
    config: Annotated[
        Path, typer.Argument(help="YAML file with the settings of the run.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that overrule the file, for instance optimizer.lr=0.005 max_epochs=50.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted run, or a finished one with more `max_epochs`."
        ),
    ] = False,
) -> None:
    """Train a potential on labelled structures.

    Writes model.safetensors, log.csv, last.ckpt and report/ into the `output` folder. Ctrl-C stops after the
    step and says how to go on. Several processes: torchrun --nproc-per-node N --no-python mlip train …
    """
    from mlip.training.config_file import load_config
    from mlip.training.run import run_training

    settings = load_config(config, overrides or [])
    result = run_training(settings, resume=resume)
    if result.main and result.reason in ("signal", "stop_after"):
        where = f"{result.epoch} of {settings.max_epochs} epochs done"
        command = " ".join(
            ["mlip train", str(config), *(o for o in overrides or [] if not _stops(o)), "--resume"]
        )
        typer.echo(f"stopped: {where}; go on with: {command}", err=True)
    if result.signal_number:
        raise typer.Exit(INTERRUPTED + result.signal_number)


def _stops(override: str) -> bool:
    return override.startswith("stop_after=")
