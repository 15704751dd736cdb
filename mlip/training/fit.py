"""Lightning's trainer around the module, and what follows the last epoch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from mlip.checkpoint import load_potential, save_potential
from mlip.potential import Potential
from mlip.training.callbacks import EpochEnd, Stopping
from mlip.training.config import TrainConfig
from mlip.training.evaluation import predict
from mlip.training.logs import CsvLog
from mlip.training.loss import Labels
from mlip.training.module import TrainingModule
from mlip.training.novelty import fit_domain
from mlip.training.relaxation import Relaxations, describe
from mlip.training.report import metrics_table, write_report
from mlip.training.run import DTYPES, PackedSets, Processes, TrainingResult


def fit(
    config: TrainConfig,
    potential: Potential,
    packed: PackedSets,
    *,
    state: dict[str, Any] | None,
    processes: Processes,
    device: torch.device,
    say: Callable[[str], None],
    relaxations: Relaxations | None = None,
) -> TrainingResult:
    """Run the epochs, then report.

    Args:
        config: The run.
        potential: To be trained.
        packed: Its frames.
        state: From which to resume, or None.
        processes: This process among all.
        device: Of this process.
        say: Prints a line on the main process.
        relaxations: To be repeated now and then, and by the best weights.
    """
    module = TrainingModule(
        potential,
        config,
        packed.train.to(device),
        packed.valid.to(device),
        rank=processes.rank,
        world_size=processes.world_size,
        relaxations=relaxations,
    )
    if state is not None:
        module.restore(state)
        say(
            f"resuming after epoch {module.epoch}"
            + (f", step {module.batches_done}" if module.batches_done else "")
        )
    model_file = config.output / "model.safetensors"
    main = processes.rank == 0
    stopping = Stopping(config, world_size=processes.world_size)
    ending = EpochEnd(config, config.output, lambda m: save_best(m, model_file), main=main)
    with _quiet():
        trainer = make_trainer(
            config, processes, device, [ending, stopping], partly_unused=potential.has_direct_hessian
        )
        _fit_from(trainer, module)
    finished = stopping.reason not in ("signal", "stop_after")
    metrics: dict[str, dict[str, float]] = {}
    if main and finished:
        if math.isinf(module.best_loss) or not model_file.is_file():
            keep_last(module.to(device), model_file, stopping.reason or "max_epochs", say)
        metrics = conclude(config, packed, model_file, device, say, relaxations)
    return TrainingResult(
        finished=finished,
        main=main,
        reason=stopping.reason,
        signal_number=stopping.signal_number,
        epoch=module.epoch,
        model=model_file if model_file.is_file() else None,
        metrics=metrics,
    )


def _fit_from(trainer: pl.Trainer, module: TrainingModule) -> None:
    """Run the epochs that the module has not done yet."""
    done = dict.fromkeys(("ready", "started", "processed", "completed"), module.epoch)
    trainer.fit_loop.epoch_progress.load_state_dict({"total": done, "current": done})
    try:
        trainer.fit(module)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def make_trainer(
    config: TrainConfig,
    processes: Processes,
    device: torch.device,
    callbacks: list[pl.Callback],
    *,
    partly_unused: bool = False,
) -> pl.Trainer:
    """A trainer without any of the features that cost time in every step.

    Args:
        config: The run.
        processes: This process among all.
        device: Of this process.
        callbacks: What happens around the steps.
        partly_unused: Whether there are steps in which some weights get no gradient, as those of a head for
            Hessians in a batch without one.
    """
    distributed = processes.world_size > 1
    strategy: Any = "auto"
    if distributed:
        strategy = DDPStrategy(
            find_unused_parameters=partly_unused,
            broadcast_buffers=False,
            process_group_backend="nccl" if device.type == "cuda" else "gloo",
        )
    devices: Any = processes.local_world_size
    if device.type == "cuda" and not distributed:
        devices = [device.index]
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=devices,
        num_nodes=processes.world_size // processes.local_world_size,
        strategy=strategy,
        max_epochs=config.max_epochs,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,
        default_root_dir=config.output,
    )


def save_best(module: TrainingModule, path: Path) -> None:
    """Write the averaged weights with their validation errors."""
    errors = {k.removeprefix("valid_"): v for k, v in module.row.items() if k.startswith("valid_")}
    with module.ema.applied():
        save_potential(
            module.potential, path, metadata={"metrics": {"valid": errors}, "best_epoch": module.best_epoch}
        )


def keep_last(module: TrainingModule, path: Path, reason: str, say: Callable[[str], None]) -> None:
    """Validate and keep the weights with which a run ended that has no model of a validated epoch.

    Args:
        module: After its last step, its state saved.
        path: Of the model.
        reason: Why the run ended.
        say: Prints a line.

    Raises:
        InputError: The validation loss is not finite.
    """
    say(
        f"stopped ({reason}) without a model from a validated epoch: the weights of step {module.step} are "
        "validated and kept; to go on, set more time or epochs and use --resume"
    )
    module.validate_at_last()
    save_best(module, path)


def conclude(
    config: TrainConfig,
    packed: PackedSets,
    model_file: Path,
    device: torch.device,
    say: Callable[[str], None],
    relaxations: Relaxations | None,
) -> dict[str, dict[str, float]]:
    """Errors of the best weights on every set of frames, written to model, report and terminal."""
    potential = load_potential(model_file, device=str(device), dtype=DTYPES[config.dtype])
    if config.freeze == "none":  # else the model still is what its first training made it
        fit_domain(
            potential, packed.train.to(device), packed.valid.to(device), batch_size=config.valid_batch_size
        )
    sets = {"train": packed.train, "valid": packed.valid, **packed.tests}
    results = {
        name: predict(
            potential,
            data.to(device),
            batch_size=config.valid_batch_size,
            labels=Labels(
                energy=True,
                forces=True,
                stress=data.has_stress,
                hessian=potential.has_direct_hessian and data.has_hessians,
            ),
            species=potential.species,
        )
        for name, data in sets.items()
    }
    metrics = {name: errors for name, (_, errors) in results.items()}
    relaxed = {} if relaxations is None else relaxations.measure(potential)
    save_potential(
        potential, model_file, metadata={"metrics": metrics} | ({"relaxation": relaxed} if relaxed else {})
    )
    history = CsvLog(config.output / "log.csv").read()
    write_report(
        config.output / "report",
        {name: predictions for name, (predictions, _) in results.items()},
        metrics,
        history,
        relaxation=relaxed,
        plots=config.plots,
    )
    say(metrics_table(metrics))
    if relaxed:
        say(f"relaxations: {describe(relaxed)}")
    say(f"model: {model_file}   report: {config.output / 'report'}")
    return metrics


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice and advertisements are not for the people who train a potential."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
