"""Deterministic splits that never put what belongs together on two sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from mlip.datasets.digest import structure_digest
from mlip.datasets.frames import Frame
from mlip.datasets.labels import FrameList
from mlip.errors import InputError

KEYS: Final = ("group", "molecule", "reaction", "trajectory")
"""What frames can have in common, by the names of `Frame`'s attributes."""


def split_frames(
    frames: Sequence[Frame], fractions: Sequence[float], *, by: str | Sequence[str] = "frame", seed: int = 0
) -> list[FrameList]:
    """Divide frames into parts of about the given fractions.

    Frames of the same structure, bit for bit, always go to the same part, and isolated atoms to the first.
    The same frames, fractions and seed give the same split on every machine; order within a part is the
    file's.

    Args:
        frames: Frames; a `FrameList` hands its report on to every part.
        fractions: Positive, adding up to at most 1; what is left over is in no part.
        by: `"frame"`, or one or several of `KEYS`: frames that have one of these in common, or the
            trajectory, stay together, and so does whatever hangs together by a chain of such frames. A frame
            without any of the keys stays with the others of its composition that have none. Parts then differ
            from the fractions by at most about the largest such set.
        seed: Of the shuffle.

    Raises:
        InputError: The fractions cannot be used, no frame has the key, or a part would be empty.
    """
    shares = _checked(fractions)
    keys = checked_keys(by)
    rng = np.random.default_rng(seed)
    atoms = [i for i, f in enumerate(frames) if f.is_isolated_atom]
    others = [i for i, f in enumerate(frames) if not f.is_isolated_atom]
    if keys:
        sets = connected(frames, others, keys)
        parts = _by_set(sets, shares, rng)
        what = f"{len(sets)} {'+'.join(keys)} sets of {len(others)} frames"
    else:
        parts = _by_frame(frames, others, shares, rng)
        what = f"{len(others)} frames"
    if any(not p for p in parts):
        raise InputError(
            f"{what} cannot be split into {len(shares)} parts {list(fractions)}: one would be empty"
            + ("; `by` frame divides frames of one set too" if keys else "")
        )
    parts[0] = atoms + parts[0]
    report = frames.report if isinstance(frames, FrameList) else None
    return [FrameList([frames[i] for i in sorted(p)], report=report) for p in parts]


def usual_key(frames: Sequence[Frame]) -> str:
    """What a split keeps together unless told otherwise: "group" where any frame has one, else "frame"."""
    return "group" if any(frame.group for frame in frames) else "frame"


def checked_keys(by: str | Sequence[str]) -> tuple[str, ...]:
    """The keys in `by`, none for "frame".

    Raises:
        InputError: It is neither "frame" nor some of `KEYS`.
    """
    names = tuple(n.strip() for n in by.split(",")) if isinstance(by, str) else tuple(by)
    if names == ("frame",):
        return ()
    if not names or not set(names) <= set(KEYS):
        raise InputError(f"`by` is {by!r} but must be frame, or of {', '.join(KEYS)} (several: with commas)")
    return names


Mark = tuple[str, str]
"""A name and what it is the name of, such as ("water/300K", "trajectory")."""


def connected(frames: Sequence[Frame], indices: Sequence[int], keys: Sequence[str]) -> dict[Mark, list[int]]:
    """Sets of frames that hang together, by name.

    Args:
        frames: All frames.
        indices: Those to look at.
        keys: Of `KEYS`; the trajectory and the digest of the structure count in any case.

    Returns:
        Indices of the frames of each set, by the first, in alphabetical order, of the keys of its frames.

    Raises:
        InputError: No frame has a key other than the group.
    """
    for key in keys:
        if key != "group" and indices and not any(getattr(frames[i], key) for i in indices):
            raise InputError(
                f"no frame has a {key}, so that they cannot be split by it: split by group (which falls back "
                "on the composition) or by frame"
            )
    roots: dict[Mark, Mark] = {}

    def root(node: Mark) -> Mark:
        path = []
        while (above := roots.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for passed in path:
            roots[passed] = node
        return node

    firsts = {}
    for i in indices:
        first, *rest = _marks(frames[i], keys)
        firsts[i] = first
        for mark in rest:
            roots[root(mark)] = root(first)
    sets: dict[Mark, list[int]] = {}
    for i in indices:
        sets.setdefault(root(firsts[i]), []).append(i)
    return {min(firsts[i] for i in members): members for members in sets.values()}


def _marks(frame: Frame, keys: Sequence[str]) -> Iterator[Mark]:
    """What a frame hangs on, the key that was asked for first."""
    own = [(value, key) for key in keys if (value := getattr(frame, key))]
    yield from own or [(frame.formula, "formula")]
    if frame.trajectory:
        yield frame.trajectory, "trajectory"
    yield str(structure_digest(frame)), "structure"


def _checked(fractions: Sequence[float]) -> list[float]:
    shares = [float(f) for f in fractions]
    if not shares or not all(0 < f <= 1 for f in shares) or sum(shares) > 1 + 1e-9:
        raise InputError(
            f"`fractions` is {list(fractions)} but must be positive numbers adding up to at most 1"
        )
    return shares


def _by_frame(
    frames: Sequence[Frame], indices: list[int], shares: list[float], rng: np.random.Generator
) -> list[list[int]]:
    """At random; further copies of a structure follow the first."""
    first: dict[int, int] = {}
    copies: dict[int, list[int]] = {}
    for i in indices:
        origin = first.setdefault(structure_digest(frames[i]), i)
        copies.setdefault(origin, []).append(i)
    order = [indices[k] for k in rng.permutation(len(indices))]
    ends = [round(len(indices) * s) for s in np.cumsum(shares).tolist()]
    return [
        [i for k in order[a:b] for i in copies.get(k, [])] for a, b in zip([0, *ends[:-1]], ends, strict=True)
    ]


def _by_set(members: dict[Mark, list[int]], shares: list[float], rng: np.random.Generator) -> list[list[int]]:
    """Sets, largest first and equal ones at random: each goes to the part that lacks most of its share."""
    names = sorted(members)
    rest = 1.0 - sum(shares)
    count = sum(len(m) for m in members.values())
    targets = np.array([*shares, rest] if rest > 1e-9 else shares) * count
    parts: list[list[int]] = [[] for _ in targets]
    order = [names[i] for i in rng.permutation(len(names))]
    for name in sorted(order, key=lambda n: -len(members[n])):
        missing = targets - [len(p) for p in parts]
        parts[int(np.argmax(missing / targets))].extend(members[name])
    return parts[: len(shares)]
