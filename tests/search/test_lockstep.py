"""Searches as generators, driven together."""

from __future__ import annotations

import pytest
from ase import Atoms

from mlip.calculators.surface import Evaluation
from mlip.errors import InputError
from mlip.search.lockstep import Ask, run, side_by_side


class Recorder:
    """Energy is x of the first atom; refuses x < 0; keeps the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, bool]] = []

    def evaluate(self, structures, *, stress=False, hessian=False):
        self.batches.append((len(structures), hessian))
        if any(atoms.positions[0, 0] < 0.0 for atoms in structures):
            raise InputError("structure 0: x is negative")
        return [
            Evaluation(energy=float(atoms.positions[0, 0]), forces=atoms.positions * 0.0)
            for atoms in structures
        ]


def atom(x: float) -> Atoms:
    return Atoms("H", positions=[[x, 0, 0]])


def count_down(x: float):
    seen = []
    while x >= 0.0:
        (found,) = yield [Ask(atoms=atom(x))]
        seen.append(found.energy)
        x -= 1.0
    return seen


def test_each_at_its_own_pace_and_in_one_batch() -> None:
    surface, ended = Recorder(), []
    results = run(
        surface, [count_down(2), count_down(0), count_down(1)], done=lambda number, _: ended.append(number)
    )
    assert results == [[2, 1, 0], [0], [1, 0]]
    assert surface.batches == [(3, False), (2, False), (1, False)]
    assert ended == [1, 2, 0]


def test_only_some_at_once() -> None:
    surface = Recorder()
    assert run(surface, [count_down(1), count_down(0), count_down(1)], at_once=2) == [[1, 0], [0], [1, 0]]
    assert surface.batches == [(2, False), (2, False), (1, False)]


def test_hessians_are_their_own_batch() -> None:
    def both():
        found = yield [
            Ask(atoms=atom(1), hessian="true"),
            Ask(atoms=atom(2)),
            Ask(atoms=atom(3), hessian="true"),
        ]
        return [one.energy for one in found]

    surface = Recorder()
    assert run(surface, [both()]) == [[1, 2, 3]]
    assert surface.batches == [(1, False), (2, True)]


def careful(x: float):
    try:
        (found,) = yield [Ask(atoms=atom(x))]
    except InputError as error:
        return str(error)
    return found.energy


def test_a_failure_meets_the_search_that_caused_it() -> None:
    assert run(Recorder(), [careful(1), careful(-1), careful(2)]) == [1, "structure 0: x is negative", 2]


def test_side_by_side_within_a_search() -> None:
    def pair(*starts: float):
        first = yield from side_by_side([careful(x) for x in starts])
        second = yield from side_by_side([count_down(1), count_down(0)])
        return first, second

    surface = Recorder()
    results = run(surface, [pair(1, -1), pair(3, 4)])
    assert results == [([1, "structure 0: x is negative"], [[1, 0], [0]]), ([3, 4], [[1, 0], [0]])]
    assert surface.batches[0] == (4, False)


def test_a_failure_that_nobody_expects_is_raised() -> None:
    with pytest.raises(InputError, match="x is negative"):
        run(Recorder(), [count_down(1), (ask for ask in [[Ask(atoms=atom(-1))]])])


def test_what_is_not_finite_is_a_failure() -> None:
    class Broken(Recorder):
        def evaluate(self, structures, *, stress=False, hessian=False):
            return [Evaluation(energy=float("nan"), forces=atoms.positions) for atoms in structures]

    assert "not finite" in run(Broken(), [careful(1)])[0]
