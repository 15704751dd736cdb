"""Weights that keep long trajectories and large groups from outvoting short and small ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mlip.datasets.frames import Frame
from mlip.datasets.split import KEYS
from mlip.errors import InputError


def balance_weights(frames: Sequence[Frame], *, by: str) -> list[Frame]:
    """Let each group, molecule, reaction or trajectory have the same say, however many frames it has.

    The weight of a frame is multiplied by N / (G n), where N is the number of frames, G the number of groups
    and n that of frames in its own; the mean factor is 1. A frame that has none is a group of its own.

    Args:
        frames: Frames; not changed.
        by: One of `KEYS`.

    Raises:
        InputError: `by` is not, or no frame has it.
    """
    if by not in KEYS:
        raise InputError(f"`by` is {by!r} but must be one of {', '.join(KEYS)}")
    names = [getattr(frame, by) or f"\0{i}" for i, frame in enumerate(frames)]
    if frames and all(name.startswith("\0") for name in names):
        raise InputError(f"no frame has a {by}, so that they cannot be weighted by it")
    sizes = Counter(names)
    return [
        replace(frame, weight=frame.weight * len(frames) / (len(sizes) * sizes[name]))
        for frame, name in zip(frames, names, strict=True)
    ]
