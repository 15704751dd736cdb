"""Which frames make up which batch: a pure function of the seed, the epoch and the process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Share:
    """One process's part of one batch.

    ``frames`` are indices into the data set. ``counted`` tells whether they count: a process without a frame
    of its own in an uneven last batch takes one frame that does not count, so that every process does the
    same number of steps. ``whole`` lists the frames of the batch over all processes.
    """

    frames: npt.NDArray[np.int64]
    counted: bool
    whole: npt.NDArray[np.int64]


@dataclass(frozen=True)
class EpochSampler:
    """Shuffled batches of one epoch.

    The order depends on ``(seed, epoch)`` alone, so a run that resumes anywhere sees the frames that an
    uninterrupted one would have seen, whatever the number of processes.

    Attributes:
        num_frames: Size of the training set.
        batch_size: Frames of one optimiser step, over all processes.
        seed: Seed of the run.
        rank: This process.
        world_size: Number of processes.
    """

    num_frames: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    @property
    def batches_per_epoch(self) -> int:
        """Optimiser steps in an epoch; the last batch may be smaller."""
        return -(-self.num_frames // self.batch_size)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """All frames in the order of an epoch."""
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        return generator.permutation(self.num_frames).astype(np.int64)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Share]:
        """This process's shares of the batches of an epoch, from batch ``start`` on."""
        order = self.order(epoch)
        for batch in range(start, self.batches_per_epoch):
            whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            mine = whole[self.rank :: self.world_size]
            yield Share(mine if len(mine) else whole[:1], counted=len(mine) > 0, whole=whole)


def sequential_shares(
    num_frames: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[npt.NDArray[np.int64]]:
    """Frames in order, in batches, each frame seen by exactly one process."""
    mine = np.arange(rank, num_frames, world_size, dtype=np.int64)
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
