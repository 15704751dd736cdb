"""What happens around the optimiser steps: validation, logs, checkpoints, stopping."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from mlip.training.config import TrainConfig, dump
from mlip.training.logs import CsvLog, ProgressLine, TensorBoardLog
from mlip.training.module import TrainingModule
from mlip.training.state import save_state

SYNCHRONISE_EVERY = 10
"""Steps between two looks at whether another process wants to stop."""

PATIENCE = 5.0
"""Seconds in which further signals are taken for echoes of the first: ``torchrun`` passes on what a terminal
has already sent to every process."""


class EpochEnd(pl.Callback):
    """After a complete epoch: validation, logs, best model, checkpoint; after an incomplete one: checkpoint.

    Args:
        config: The run.
        folder: Where ``last.ckpt`` and the logs go.
        save_best: Called when the averaged weights are the best so far.
        main: Whether this process writes.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, save_best: Callable[[TrainingModule], None], *, main: bool
    ) -> None:
        self._config = config
        self._folder = folder
        self._save_best = save_best
        self._main = main
        self._csv = CsvLog(folder / "log.csv")
        self._board: TensorBoardLog | None = None
        self._line = ProgressLine(config.max_epochs, every=config.log_every)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the logs; drop what they say about epochs after the checkpoint."""
        module = _module(pl_module)
        if self._main:
            self._csv.keep_until(module.epoch)
            if self._config.tensorboard:
                self._board = TensorBoardLog.open(self._folder / "tensorboard", first_step=module.epoch + 1)
            self._line.start(module.epoch)
            if module.step == 0:
                self._save(module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the progress line."""
        module = _module(pl_module)
        if self._main:
            self._line.tick(module.epoch, module.batches_done, module.sampler.batches_per_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate, log and save."""
        module = _module(pl_module)
        if not module.epoch_is_complete:
            self._save(module)
            return
        module.finish_epoch()
        if not self._main:
            return
        self._csv.append(module.row)
        if self._board is not None:
            self._board.append(module.row)
        self._line.epoch(module.row, best=module.is_best)
        if module.is_best:
            self._save_best(module)
        if module.epoch % self._config.checkpoint_every == 0 or module.epoch == self._config.max_epochs:
            self._save(module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the logs, and save what ``checkpoint_every`` left unsaved."""
        if self._main:
            self._line.close()
            if self._board is not None:
                self._board.close()
            self._save(_module(pl_module))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal on a fresh line."""
        self._line.close()

    def _save(self, module: TrainingModule) -> None:
        if self._main:
            save_state(self._folder / "last.ckpt", module.training_state(), dump(self._config))


class Stopping(pl.Callback):
    """Ends the run early: on SIGINT or SIGTERM, out of time, without improvement, after ``stop_after``.

    A first signal lets the step finish; one that comes ``PATIENCE`` later acts as if there were no handler.

    Attributes:
        reason: ``signal``, ``max_time``, ``early_stopping``, ``stop_after``, or empty.
        signal_number: Of the signal.
    """

    REASONS = ("", "signal", "max_time", "early_stopping", "stop_after")

    def __init__(self, config: TrainConfig, *, world_size: int) -> None:
        self.reason = ""
        self.signal_number = 0
        self._signalled = 0.0
        self._agreed = False
        self._config = config
        self._world_size = world_size
        self._old: dict[int, Any] = {}
        self._deadline = time.monotonic() + 60.0 * config.max_time if config.max_time is not None else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the two signals; end at once if there is nothing left to do."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._on_signal)
        if self._after_epoch(_module(pl_module)):
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the signal and the clock."""
        if not self.reason and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "max_time"
        if self._world_size > 1:
            self._agree(_module(pl_module))
        elif self.reason:
            trainer.should_stop = True
        if self._world_size > 1 and self._agreed:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the epochs."""
        module = _module(pl_module)
        if module.batches_done == 0 and self._after_epoch(module):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _agree(self, module: TrainingModule) -> None:
        """All processes stop at the same step, or they would wait for each other for ever."""
        if module.step % SYNCHRONISE_EVERY and not module.epoch_is_complete:
            return
        wish = torch.tensor([self.REASONS.index(self.reason), self.signal_number], device=module.device)
        dist.all_reduce(wish, op=dist.ReduceOp.MAX)
        index, self.signal_number = wish.tolist()
        self.reason = self.REASONS[index]
        self._agreed = bool(self.reason)

    def _after_epoch(self, module: TrainingModule) -> bool:
        if self.reason:
            return True
        patience = self._config.early_stopping
        waited = module.epoch - module.best_epoch
        if patience is not None and module.is_validated(module.epoch) and waited >= patience.patience:
            self.reason = "early_stopping"
        elif self._config.stop_after is not None and module.epoch >= self._config.stop_after:
            self.reason = "stop_after"
        if module.epoch >= self._config.max_epochs:
            self.reason = ""
        return bool(self.reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal_number == 0:
            self.reason, self.signal_number, self._signalled = "signal", number, now
        elif now - self._signalled > PATIENCE:
            self._restore()
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


def _module(module: pl.LightningModule) -> TrainingModule:
    if not isinstance(module, TrainingModule):
        raise TypeError(f"these callbacks serve TrainingModule, not {type(module).__name__}")
    return module
