"""Many searches at once: each is a generator that asks for evaluations, and what all of them ask for at a
time is evaluated as one batch.

A search is written as if it were alone:

    def descend(atoms):
        (here,) = yield [Ask(atoms)]
        ...
        return result

`run` drives any number of them to their ends, each at its own pace; `side_by_side` does the same within a
search, for instance for the two directions of a reaction path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
from ase.calculators.calculator import CalculatorError

from mlip.calculators.surface import Evaluation
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from mlip.calculators.surface import Surface


T = TypeVar("T")
Hessian: TypeAlias = Literal["none", "quick", "true"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """A structure to be evaluated.

    Attributes:
        atoms: The structure.
        hessian: Whether with its Hessian: "quick" is as the surface predicts it if it can, "true" the second
            derivatives of its energy, on which decisions rest.
    """

    atoms: Atoms
    hessian: Hessian = "none"


Search: TypeAlias = Generator[list[Ask], list[Evaluation], T]
Answer: TypeAlias = list[Evaluation] | Exception

FAILURES: Final = (InputError, CalculatorError)
"""What an evaluation may raise: thrown into the search that asked for it, which may try elsewhere."""


class NotEvaluated(InputError):
    """A structure on the way of a search could not be evaluated."""


@dataclass
class Tally:
    """What a search cost: structures evaluated, and for how many of them a Hessian."""

    evaluations: int = 0
    hessians: int = 0


def tallied(search: Search[T], tally: Tally) -> Search[T]:
    """The search, what it asks for being counted."""
    answer: Any = None
    try:
        while True:
            asked = search.throw(answer) if isinstance(answer, Exception) else search.send(answer)
            tally.evaluations += len(asked)
            tally.hessians += sum(ask.hessian != "none" for ask in asked)
            try:
                answer = yield asked
            except FAILURES as error:
                answer = error
    except StopIteration as stop:
        result: T = stop.value
        return result


def run(
    surface: Surface,
    searches: Sequence[Search[T]],
    *,
    true: Surface | None = None,
    at_once: int | None = None,
    done: Callable[[int, T], None] | None = None,
) -> list[T]:
    """Drive all searches to their ends, evaluating what they ask for together.

    Args:
        surface: Where the searches take place.
        searches: Generators, not yet started.
        true: The same surface with the second derivatives of its energy for Hessians, where `surface` has
            others; `surface` itself if None.
        at_once: How many run at a time, the next starting where one ends; all if None.
        done: Called with number and result as each search ends.

    Returns:
        The results, in the order of the searches.

    Raises:
        InputError: A structure could not be evaluated and its search did not cope.
    """
    loop = _drive(searches, at_once, done)
    try:
        asked = next(loop)
        while True:
            answers = _evaluate({"none": surface, "quick": surface, "true": true or surface}, asked)
            asked = loop.send(answers)
    except StopIteration as stop:
        results: list[T] = stop.value
        return results


def side_by_side(searches: Sequence[Search[T]]) -> Search[list[T]]:
    """One search made of several, whose wishes are evaluated together."""
    loop = _drive(searches, None, None)
    try:
        asked = next(loop)
        while True:
            asked = loop.send((yield from _answers_to(asked)))
    except StopIteration as stop:
        results: list[T] = stop.value
        return results


def _answers_to(asked: list[list[Ask]]) -> Search[list[Answer]]:
    """What each of several searches asked for; one by one where all together fail, so that the error meets
    the search that caused it."""
    try:
        found = iter((yield [ask for wishes in asked for ask in wishes]))
        return [[next(found) for _ in wishes] for wishes in asked]
    except FAILURES as error:
        if len(asked) == 1:
            return [error]
    answers: list[Answer] = []
    for wishes in asked:
        try:
            answers.append((yield wishes))
        except FAILURES as error:
            answers.append(error)
    return answers


def _drive(
    searches: Sequence[Search[T]], at_once: int | None, done: Callable[[int, T], None] | None
) -> Generator[list[list[Ask]], list[Answer], list[T]]:
    """Wishes of all searches that still run; takes answers, or an error, for each."""
    results: dict[int, T] = {}
    wishes: dict[int, list[Ask]] = {}

    def advance(number: int, answer: Any) -> None:
        search = searches[number]
        wishes.pop(number, None)
        try:
            wishes[number] = search.throw(answer) if isinstance(answer, Exception) else search.send(answer)
        except StopIteration as stop:
            results[number] = stop.value
            if done is not None:
                done(number, stop.value)

    waiting = deque(range(len(searches)))
    while True:
        while waiting and (at_once is None or len(wishes) < at_once):
            advance(waiting.popleft(), None)
        if not wishes:
            break
        running = list(wishes)
        answers = yield [wishes[number] for number in running]
        for number, answer in zip(running, answers, strict=True):
            advance(number, answer)
    return [results[number] for number in range(len(searches))]


def _evaluate(surfaces: dict[Hessian, Surface], asked: list[list[Ask]]) -> list[Answer]:
    """Answers for each search, or the error that its own structures met."""
    questions = _answers_to(asked)
    reply: Any = None
    try:
        while True:
            wanted = questions.throw(reply) if isinstance(reply, Exception) else questions.send(reply)
            try:
                reply = _batch(surfaces, wanted)
            except FAILURES as error:
                reply = error
    except StopIteration as stop:
        answers: list[Answer] = stop.value
        return answers


def _batch(surfaces: dict[Hessian, Surface], asked: list[Ask]) -> list[Evaluation]:
    """One call for each kind of Hessian, and one for structures without."""
    answers: dict[int, Evaluation] = {}
    for kind, surface in surfaces.items():
        places = [place for place, ask in enumerate(asked) if ask.hessian == kind]
        if places:
            found = surface.evaluate([asked[place].atoms for place in places], hessian=kind != "none")
            answers.update(zip(places, found, strict=True))
    for place, answer in answers.items():
        if not (np.isfinite(answer.energy) and np.isfinite(answer.forces).all()):
            symbols = asked[place].atoms.get_chemical_formula()
            raise NotEvaluated(
                f"energy or forces of {symbols} are not finite: the structure is out of bounds"
            )
    return [answers[place] for place in range(len(asked))]
