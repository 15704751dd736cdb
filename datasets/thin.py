"""Thinning of trajectories: of frames that hardly differ from the last one kept, one stands for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlip.alignment import superposed
from mlip.datasets.frames import Frame
from mlip.datasets.labels import FrameList
from mlip.errors import InputError


@dataclass(frozen=True)
class Thinned:
    """What is left.

    Attributes:
        frames: Those kept, in the order of the file.
        places: Their places in the file.
        stands_for: How many frames each stands for, itself included.
        trajectories: Number of trajectories; frames outside of any are all kept.
    """

    frames: FrameList
    places: list[int]
    stands_for: list[int]
    trajectories: int


def thin_frames(
    frames: Sequence[Frame], *, rmsd: float = 0.1, energy: float = 0.05, multiply_weights: bool = False
) -> Thinned:
    """Thin every trajectory.

    A trajectory is gone through by `step` (by place in the file, where steps are unknown or occur twice). Its
    first and last frame are kept, and every frame that differs from the last one kept by more than either
    limit, or in what labels it has.

    Args:
        frames: Frames.
        rmsd: Å. Molecules are superposed first; in periodic structures atoms are followed across the faces,
            the common drift is left out, and a cell vector that moved by more counts, too.
        energy: eV, of the total energy.
        multiply_weights: Multiply the weight of each kept frame by the number that it stands for.

    Raises:
        InputError: A limit is negative or not finite.
    """
    for name, value in (("rmsd", rmsd), ("energy", energy)):
        if not (value >= 0.0 and math.isfinite(value)):
            raise InputError(f"`{name}` is {value} but must be 0 or more")
    trajectories: dict[str, list[int]] = {}
    stands_for: dict[int, int] = {}
    for i, frame in enumerate(frames):
        if frame.trajectory:
            trajectories.setdefault(frame.trajectory, []).append(i)
        else:
            stands_for[i] = 1
    for places in trajectories.values():
        stands_for.update(_thin(frames, _in_order(frames, places), rmsd, energy))
    kept = sorted(stands_for)
    chosen = [
        replace(frames[i], weight=frames[i].weight * stands_for[i]) if multiply_weights else frames[i]
        for i in kept
    ]
    report = frames.report if isinstance(frames, FrameList) else None
    return Thinned(
        frames=FrameList(chosen, report=report),
        places=kept,
        stands_for=[stands_for[i] for i in kept],
        trajectories=len(trajectories),
    )


def _in_order(frames: Sequence[Frame], places: list[int]) -> list[int]:
    steps = [frames[i].step for i in places]
    if min(steps) < 0 or len(set(steps)) < len(steps):
        return places
    return sorted(places, key=lambda i: frames[i].step)


def _thin(frames: Sequence[Frame], places: list[int], rmsd: float, energy: float) -> dict[int, int]:
    """Frames kept of one trajectory, and how many each stands for."""
    kept = {places[0]: 1}
    last = places[0]
    for i in places[1:]:
        if i == places[-1] or _differs(frames[last], frames[i], rmsd, energy):
            last = i
            kept[i] = 0
        kept[last] += 1
    return kept


def _differs(a: Frame, b: Frame, rmsd: float, energy: float) -> bool:
    if not (np.array_equal(a.atomic_numbers, b.atomic_numbers) and np.array_equal(a.pbc, b.pbc)):
        return True
    if any(
        (getattr(a, label) is None) != (getattr(b, label) is None)
        for label in ("energy", "forces", "stress", "hessian")
    ):
        return True
    if a.energy is not None and b.energy is not None and abs(a.energy - b.energy) > energy:
        return True
    return distance(a, b) > rmsd


def distance(a: Frame, b: Frame) -> float:
    """How far two frames of the same atoms, in the same order, are apart: root mean squared, Å."""
    axes = np.flatnonzero(a.pbc)
    if not len(axes):
        steps = superposed(b.positions, a.positions) - a.positions
        return _root_mean_square(steps)
    vectors, others = a.cell[axes], b.cell[axes]
    steps = b.positions + b.positions @ np.linalg.pinv(others) @ (vectors - others) - a.positions
    steps -= np.round(steps @ np.linalg.pinv(vectors)) @ vectors
    strained = float(np.linalg.norm(others - vectors, axis=1).max())
    return max(strained, _root_mean_square(steps - steps.mean(axis=0)))


def _root_mean_square(steps: np.ndarray) -> float:
    return float(np.sqrt((steps**2).sum(axis=1).mean()))
