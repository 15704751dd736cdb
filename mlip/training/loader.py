"""The stream of training batches that Lightning iterates over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlip.training.packed import Batch, PackedFrames
from mlip.training.sampling import EpochSampler


class BatchLoader:
    """Batches of the epoch that the run is in, from the batch that it is at.

    It has no length on purpose: Lightning takes what comes, and an epoch resumed in its middle is shorter.

    Args:
        data: Training frames.
        sampler: Their order.
        position: Gives the epoch and the number of its batches already done when an epoch begins.
    """

    def __init__(
        self, data: PackedFrames, sampler: EpochSampler, position: Callable[[], tuple[int, int]]
    ) -> None:
        self._data = data
        self._sampler = sampler
        self._position = position

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._position()
        for share in self._sampler.batches(epoch, start):
            yield self._data.batch(share.frames, counted=share.counted, whole=share.whole)
