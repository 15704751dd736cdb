from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.datasets import Frame, read_frames, split_frames
from mlip.errors import InputError


def _frames(groups: list[str]) -> list[Frame]:
    return [
        Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), group=g, info={"step": i})
        for i, g in enumerate(groups)
    ]


def _steps(part: list[Frame]) -> list[int]:
    return [int(f.info["step"]) for f in part]


def test_known_split() -> None:
    """The same on every machine and in every version: models are compared on it."""
    parts = split_frames(_frames(["a"] * 10), [0.6, 0.2, 0.2], seed=3)
    assert [_steps(p) for p in parts] == KNOWN


@settings(max_examples=50, deadline=None)
@given(count=st.integers(10, 60), seed=st.integers(0, 2**31), share=st.floats(0.2, 0.6))
def test_frames_are_divided_once_each(count: int, seed: int, share: float) -> None:
    parts = split_frames(_frames(["a"] * count), [share, 0.3], seed=seed)
    steps = [s for p in parts for s in _steps(p)]
    assert len(steps) == len(set(steps))
    assert abs(len(parts[0]) - share * count) <= 1
    assert all(_steps(p) == sorted(_steps(p)) for p in parts)
    again = split_frames(_frames(["a"] * count), [share, 0.3], seed=seed)
    assert [_steps(p) for p in again] == [_steps(p) for p in parts]


def test_another_seed_is_another_split() -> None:
    frames = _frames(["a"] * 50)
    assert _steps(split_frames(frames, [0.5], seed=0)[0]) != _steps(split_frames(frames, [0.5], seed=1)[0])


@pytest.mark.parametrize("seed", range(20))
def test_groups_never_leak(seed: int) -> None:
    groups = np.random.default_rng(seed).choice(list("abcdefghijklmnopqrst"), size=120 + seed).tolist()
    frames = _frames(groups)
    parts = split_frames(frames, [0.6, 0.2, 0.2], by="group", seed=seed)
    names = [{f.group for f in p} for p in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert sum(len(p) for p in parts) == len(frames)
    largest = max(groups.count(g) for g in groups)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - share * len(frames)) <= 2 * largest


def test_without_groups_the_composition_counts() -> None:
    frames = [
        Frame(positions=np.zeros((n, 3)), atomic_numbers=np.ones(n, dtype=int))
        for n in (1, 1, 2, 2, 3, 3, 4, 4)
    ]
    parts = split_frames(frames, [0.5, 0.5], by="group")
    assert {f.formula for f in parts[0]} & {f.formula for f in parts[1]} == set()


def test_isolated_atoms_stay_with_the_first_part() -> None:
    atom = Frame(
        positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), info={"config_type": "IsolatedAtom"}
    )
    for by in ("frame", "group"):
        frames = [*[atom] * 4, *_frames(list("abcdefghij"))]
        parts = split_frames(frames, [0.5, 0.5], by=by, seed=5)
        assert sum(f.is_isolated_atom for f in parts[0]) == 4
        assert len(parts[0]) == 9


def test_the_report_goes_along(xyz: Path) -> None:
    frames = read_frames(xyz)
    assert split_frames(frames, [0.5, 0.5])[1].report is frames.report


@pytest.mark.parametrize(
    ("fractions", "by", "message"),
    [
        (
            [0.8, 0.3],
            "frame",
            r"`fractions` is \[0.8, 0.3\] but must be positive numbers adding up to at most 1",
        ),
        ([0.5, -0.1], "frame", "must be positive"),
        ([], "frame", "must be positive"),
        ([0.5, 0.5], "molecule", "`by` is 'molecule' but must be 'frame' or 'group'"),
        ([0.5, 0.5], "group", "1 groups cannot be split into 2 parts .* one would be empty"),
        ([0.9, 0.05, 0.05], "frame", r"5 frames cannot be split into 3 parts \[0.9, 0.05, 0.05\]"),
    ],
)
def test_refusals(fractions: list[float], by: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_frames(_frames(["a"] * 5), fractions, by=by)


KNOWN = [[0, 1, 2, 4, 6, 9], [5, 7], [3, 8]]
