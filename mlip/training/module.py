"""The Lightning module: an optimiser step, the validation of an epoch, the state that a resume restores."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from mlip.errors import InputError
from mlip.potential import Potential
from mlip.training.config import TrainConfig
from mlip.training.data import hash_key
from mlip.training.ema import ExponentialMovingAverage
from mlip.training.evaluation import evaluate_errors, wanted_hessians
from mlip.training.hessians import with_products
from mlip.training.loader import BatchLoader
from mlip.training.loss import Labels, Weights, batch_loss
from mlip.training.metrics import ErrorSums
from mlip.training.optimizer import make_optimizer
from mlip.training.packed import Batch, PackedFrames
from mlip.training.relaxation import Relaxations
from mlip.training.sampling import EpochSampler
from mlip.training.schedule import final_weight, learning_rate_factor

CHECK_EVERY = 50
"""Steps between two looks at whether the loss is still finite; each look waits for the device."""


class TrainingModule(pl.LightningModule):
    """Trains a potential.

    The batch size counts the structures of one optimiser step over all processes, so that their number
    does not change what is learned. Learning rate, loss weights and batches depend on the step alone.

    Args:
        potential: To be trained, on its device.
        config: The run.
        train: Training frames.
        valid: Validation frames.
        rank: This process.
        world_size: Number of processes.
        relaxations: To be repeated now and then.
    """

    def __init__(
        self,
        potential: Potential,
        config: TrainConfig,
        train: PackedFrames,
        valid: PackedFrames,
        *,
        rank: int = 0,
        world_size: int = 1,
        relaxations: Relaxations | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.potential = potential
        self.config = config
        self.labels = Labels.of(config.loss, frozen=config.freeze == "backbone")
        self.sampler = EpochSampler(len(train), config.batch_size, config.seed, rank, world_size)
        self.ema = ExponentialMovingAverage(potential, config.ema)
        self.optimizer = make_optimizer(potential, config)
        self.epoch = 0
        self.batches_done = 0
        self.step = 0
        self.best_loss = math.inf
        self.best_epoch = 0
        self.row: dict[str, float] = {}
        self.train_errors = ErrorSums(device=train.device)
        self._train, self._valid = train, valid
        self._world_size = world_size
        self._relaxations = relaxations
        self._parameters_list = [p for p in potential.parameters() if p.requires_grad]
        self._epoch_started = time.monotonic()
        self._epoch_seconds = 0.0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.sampler.batches_per_epoch * self.config.max_epochs

    @property
    def epoch_is_complete(self) -> bool:
        """Whether all batches of the present epoch are done."""
        return self.batches_done == self.sampler.batches_per_epoch

    def train_dataloader(self) -> BatchLoader:
        """The training batches."""
        return BatchLoader(self._train, self.sampler, lambda: (self.epoch, self.batches_done))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser, whose learning rate ``training_step`` sets."""
        return self.optimizer

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Batches are made where the data are: nothing to move."""
        return batch

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._epoch_started = time.monotonic()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Forward, double backward, clip, step, average."""
        weights = Weights.at(self.config.loss, self.step / self.total_steps)
        output = self.potential(
            batch.graph,
            forces=self.labels.forces,
            stress=self.labels.stress,
            hessian_of=wanted_hessians(batch, self.labels),
            create_graph=True,
        )
        if self.labels.hvp:
            output |= with_products(self.potential, batch.graph)
        loss = batch_loss(output, batch, weights, self.config.loss, self.labels)
        self.optimizer.zero_grad()
        self.manual_backward(loss * self._world_size)
        if self.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters_list, self.config.gradient_clip)
        factor = learning_rate_factor(self.step, self.total_steps, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * factor
        self.optimizer.step()
        self.ema.update()
        self.train_errors.add(output, batch)
        if self.step % CHECK_EVERY == 0:
            self._check_finite(loss)
        self.step += 1
        self.batches_done += 1

    def finish_epoch(self) -> None:
        """Validate with the averaged weights and note the errors of the epoch in ``row``."""
        self._epoch_seconds += time.monotonic() - self._epoch_started
        self.train_errors.reduce()
        train = self.train_errors.result()
        self._check_finite(torch.tensor(train["energy_rmse"]))
        row = {
            "epoch": float(self.epoch + 1),
            "step": float(self.step),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": self._epoch_seconds,
        }
        row |= {f"train_{name}": value for name, value in train.items()}
        if self.is_validated(self.epoch + 1):
            row |= {f"valid_{name}": value for name, value in self.validate().items()}
        if self._relaxations is not None and self._relaxations.due(self.epoch + 1, self.config.max_epochs):
            with self.ema.applied():
                row |= self._relaxations.measure(
                    self.potential, rank=self.sampler.rank, world_size=self._world_size
                )
        self.row = row
        self.epoch += 1
        self.batches_done = 0
        self._epoch_seconds = 0.0
        self.train_errors = ErrorSums(device=self._train.device)
        if row.get("valid_loss", math.inf) < self.best_loss:
            self.best_loss, self.best_epoch = row["valid_loss"], self.epoch

    @property
    def is_best(self) -> bool:
        """Whether the epoch just finished has the lowest validation loss so far."""
        return self.best_epoch == self.epoch

    def is_validated(self, epoch: int) -> bool:
        """Whether the validation frames are looked at when that many epochs are done."""
        return epoch % self.config.valid_every == 0 or epoch == self.config.max_epochs

    def validate_at_last(self) -> None:
        """Validate on this process alone and note it as the best epoch; not part of what a resume restores.

        Raises:
            InputError: The loss is not finite, so that there are no weights worth keeping.
        """
        errors = self.validate(alone=True)
        self._check_finite(torch.tensor(errors["loss"]))
        self.row = {f"valid_{name}": value for name, value in errors.items()}
        self.best_loss, self.best_epoch = errors["loss"], self.epoch

    def validate(self, *, alone: bool = False) -> dict[str, float]:
        """Errors of the averaged weights on the validation frames, and the loss with its final weights.

        Args:
            alone: Whether this process does all of it; by default its share.
        """
        with self.ema.applied():
            errors = evaluate_errors(
                self.potential,
                self._valid,
                batch_size=self.config.valid_batch_size,
                labels=self.labels,
                rank=0 if alone else self.sampler.rank,
                world_size=1 if alone else self._world_size,
            )
        return {"loss": self._selection_loss(errors), **errors}

    def _selection_loss(self, errors: dict[str, float]) -> float:
        """Of mean errors: squares of RMSEs for squared terms, MAEs for absolute ones and for Huber's, which
        are absolute but for the smallest errors."""
        loss = self.config.loss
        matrices = final_weight(loss.hessian) or final_weight(loss.hessian_subspace)
        terms = (
            (self.labels.energy, final_weight(loss.energy), "energy_per_atom", loss.energy_form or loss.form),
            (self.labels.forces, final_weight(loss.forces), "forces", loss.form),
            (self.labels.stress, final_weight(loss.stress), "stress", loss.form),
            (True, matrices, "hessian", loss.hessian_form),
            (True, final_weight(loss.hvp), "hvp", loss.hessian_form),
        )
        value = 0.0
        for counts, weight, name, form in terms:
            if counts and form == "mse":
                value += weight * errors.get(f"{name}_rmse", 0.0) ** 2
            elif counts:
                value += weight * errors.get(f"{name}_mae", 0.0)
        return value if math.isfinite(value) else math.inf

    def _check_finite(self, value: Tensor) -> None:
        if not torch.isfinite(value).all():
            raise InputError(
                f"the loss became NaN or infinite near step {self.step} (epoch {self.epoch + 1}); "
                f"lower `optimizer.lr` ({self.config.optimizer.lr}), lengthen `schedule.warmup`, or look for "
                "wrong labels with `mlip data validate`"
            )

    def training_state(self) -> dict[str, Any]:
        """Everything that the next step depends on: tensors and plain values only."""
        seconds = self._epoch_seconds
        if self.batches_done:
            seconds += time.monotonic() - self._epoch_started
        return {
            "data_hash": self.potential.metadata.get(hash_key(self.config), ""),
            "epoch": self.epoch,
            "batches_done": self.batches_done,
            "step": self.step,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "epoch_seconds": seconds,
            "train_errors": self.train_errors.state(),
            "potential": self.potential.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``training_state`` returned."""
        self.epoch, self.batches_done, self.step = state["epoch"], state["batches_done"], state["step"]
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
        self._epoch_seconds = state["epoch_seconds"]
        self.train_errors.restore(state["train_errors"])
        self.potential.load_state_dict(state["potential"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
