"""Deterministic splits that never put frames of one group on two sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.labels import FrameList
from mlip.errors import InputError


def split_frames(
    frames: Sequence[Frame], fractions: Sequence[float], *, by: str = "frame", seed: int = 0
) -> list[FrameList]:
    """Divide frames into parts of about the given fractions.

    Isolated atoms always go to the first part. The same frames, fractions and seed give the same split on
    every machine; order within a part is the file's.

    Args:
        frames: Frames; a `FrameList` hands its report on to every part.
        fractions: Positive, adding up to at most 1; what is left over is in no part.
        by: `"frame"`, or `"group"` to keep the frames of a group (molecule, trajectory; the composition where
            a frame has no group) in one part. Parts then differ from the fractions by at most about the
            largest group.
        seed: Of the shuffle.

    Raises:
        InputError: The fractions cannot be used, or a part would be empty.
    """
    shares = _checked(fractions)
    if by not in ("frame", "group"):
        raise InputError(f"`by` is {by!r} but must be 'frame' or 'group'")
    rng = np.random.default_rng(seed)
    atoms = [i for i, f in enumerate(frames) if f.is_isolated_atom]
    others = [i for i, f in enumerate(frames) if not f.is_isolated_atom]
    parts = _by_frame(others, shares, rng) if by == "frame" else _by_group(frames, others, shares, rng)
    if any(not p for p in parts):
        what = f"{len(frames)} frames" if by == "frame" else f"{len({_group(f) for f in frames})} groups"
        raise InputError(
            f"{what} cannot be split into {len(shares)} parts {list(fractions)}: one would be empty"
        )
    parts[0] = atoms + parts[0]
    report = frames.report if isinstance(frames, FrameList) else None
    return [FrameList([frames[i] for i in sorted(p)], report=report) for p in parts]


def _checked(fractions: Sequence[float]) -> list[float]:
    shares = [float(f) for f in fractions]
    if not shares or not all(0 < f <= 1 for f in shares) or sum(shares) > 1 + 1e-9:
        raise InputError(
            f"`fractions` is {list(fractions)} but must be positive numbers adding up to at most 1"
        )
    return shares


def _group(frame: Frame) -> str:
    return frame.group or frame.formula


def _by_frame(indices: list[int], shares: list[float], rng: np.random.Generator) -> list[list[int]]:
    order = [indices[k] for k in rng.permutation(len(indices))]
    ends = [round(len(indices) * s) for s in np.cumsum(shares).tolist()]
    return [order[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _by_group(
    frames: Sequence[Frame], indices: list[int], shares: list[float], rng: np.random.Generator
) -> list[list[int]]:
    """Groups, largest first and equal ones at random: each goes to the part that lacks most of its share."""
    members: dict[str, list[int]] = {}
    for i in indices:
        members.setdefault(_group(frames[i]), []).append(i)
    names = sorted(members)
    rest = 1.0 - sum(shares)
    targets = np.array([*shares, rest] if rest > 1e-9 else shares) * len(indices)
    parts: list[list[int]] = [[] for _ in targets]
    order = [names[i] for i in rng.permutation(len(names))]
    for name in sorted(order, key=lambda n: -len(members[n])):
        missing = targets - [len(p) for p in parts]
        parts[int(np.argmax(missing / targets))].extend(members[name])
    return parts[: len(shares)]
