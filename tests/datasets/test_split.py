from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.datasets import Frame, read_frames, split_frames
from mlip.datasets.split import connected
from mlip.errors import InputError


def _frames(groups: list[str]) -> list[Frame]:
    return [
        Frame(positions=np.full((1, 3), float(i)), atomic_numbers=np.array([1]), group=g, info={"step": i})
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
        Frame(positions=np.full((n, 3), x), atomic_numbers=np.ones(n, dtype=int))
        for n in (1, 2, 3, 4)
        for x in (0.0, 1.0)
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


def _frame(place: float, **keys: str) -> Frame:
    return Frame(positions=np.full((1, 3), place), atomic_numbers=np.array([1]), **keys)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.tuples(*[st.sampled_from(["", "a", "b", "c", "d"])] * 3), min_size=4, max_size=25),
    copies=st.lists(st.integers(0, 40), min_size=25, max_size=25),
    keys=st.sampled_from(
        [("molecule",), ("reaction",), ("trajectory",), ("molecule", "reaction"), ("group",)]
    ),
)
def test_nothing_leaks_by_any_chain(names: list[tuple[str, str, str]], copies: list[int], keys) -> None:
    """Against a slow closure over all pairs: frames with a key, the trajectory or the structure in common."""
    frames = [
        _frame(float(copies[i]), molecule=m, reaction=r, trajectory=t) for i, (m, r, t) in enumerate(names)
    ]
    frames.append(_frame(-1.0, molecule="z", reaction="z", trajectory="z"))
    parts = split_frames(
        [*frames, _frame(-2.0, molecule="y", reaction="y", trajectory="y")], [0.5, 0.5], by=keys
    )
    side = {id(f): k for k, part in enumerate(parts) for f in part}
    for a in frames:
        for b in frames:
            shared = [getattr(a, k) for k in (*keys, "trajectory") if getattr(a, k) == getattr(b, k) != ""]
            bare = not any(getattr(f, k) for f in (a, b) for k in keys)
            if shared or bare or a.positions[0, 0] == b.positions[0, 0]:
                assert side[id(a)] == side[id(b)]
    assert len(side) == len(frames) + 1


def test_copies_of_a_structure_stay_together() -> None:
    """Also where frames are divided one by one, and with other labels."""
    frames = [
        Frame(positions=np.full((1, 3), float(i % 10)), atomic_numbers=np.array([1]), energy=float(i))
        for i in range(40)
    ]
    for by in ("frame", "group"):
        if by == "group":
            frames = [replace(f, group=str(i)) for i, f in enumerate(frames)]
        parts = split_frames(frames, [0.5, 0.5], by=by, seed=1)
        places = [{float(f.positions[0, 0]) for f in part} for part in parts]
        assert not places[0] & places[1]
        assert sum(len(part) for part in parts) == 40


def test_a_reaction_takes_its_molecules_along_if_asked() -> None:
    frames = [
        _frame(0.0, molecule="A", reaction="A->B"),
        _frame(1.0, molecule="B", reaction="A->B"),
        _frame(2.0, molecule="B", reaction="B->C"),
        _frame(3.0, molecule="C"),
        *(_frame(4.0 + i, molecule="D", reaction="D->E") for i in range(3)),
    ]
    names = [{f.molecule for f in part} for part in split_frames(frames, [0.5, 0.5], by="reaction,molecule")]
    assert {"A", "B"} in [n - {"C"} for n in names]
    assert not names[0] & names[1]
    assert len(connected(frames, range(7), ["reaction"])) == 4
    linked = connected(frames, range(7), ["reaction", "molecule"])
    assert list(linked.values()) == [[0, 1, 2], [3], [4, 5, 6]]
    assert list(linked)[1:] == [("C", "molecule"), ("D->E", "reaction")]


def test_the_report_goes_along(xyz: Path) -> None:
    frames = read_frames(xyz)
    assert split_frames(frames, [1.0])[0].report is frames.report


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
        ([0.5, 0.5], "formula", "`by` is 'formula' but must be frame, or of group, molecule, reaction, traj"),
        ([0.5, 0.5], "frame,group", "`by` is 'frame,group' but must be frame, or of group"),
        ([0.5, 0.5], "molecule", "no frame has a molecule, so that they cannot be split by it: split by gr"),
        ([0.5, 0.5], "group", "1 group sets of 5 frames cannot be split into 2 parts .* one would be empty"),
        ([0.9, 0.05, 0.05], "frame", r"5 frames cannot be split into 3 parts \[0.9, 0.05, 0.05\]"),
    ],
)
def test_refusals(fractions: list[float], by: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_frames(_frames(["a"] * 5), fractions, by=by)


KNOWN = [[0, 1, 2, 4, 6, 9], [5, 7], [3, 8]]
