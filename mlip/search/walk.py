"""Walks on an energy surface with a Hessian: to a minimum or to a saddle, by restricted-step RFO.

A walk is a generator that yields points where it wants to know the energy (`Probe`) and is sent what was
found there (`Reply`). It knows nothing of atoms beyond that coordinates come in threes; what may move,
and what to start from where there is no Hessian, is told by a `Space`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np

from mlip.errors import InputError
from mlip.search import hessian_update
from mlip.search.lockstep import FAILURES, Hessian
from mlip.search.rfo_step import restricted_step
from mlip.search.trust import TrustRegion, energy_change, for_minimum, for_saddle

if TYPE_CHECKING:
    from jaxtyping import Float64

    Vector = Float64[np.ndarray, " coordinates"]
    Matrix = Float64[np.ndarray, "coordinates coordinates"]

SADDLE_MODE: Final = 0.02
"""eV/Å²; a curvature less negative than this is not counted when a stationary point is judged."""

OFF_SADDLE: Final = 0.1
"""Å; displacement along a surplus negative mode at a stationary point, where the gradient cannot tell the
way."""

PATIENCE: Final = 8
"""Steps without a force a fifth smaller than any before, after which predicted Hessians are given up."""

LARGEST_ESCAPES: Final = 3
"""How often a walk leaves stationary points with surplus negative modes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A point to be evaluated."""

    x: Vector
    hessian: Hessian


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """What was found there: eV, eV/Å, eV/Å²; the Hessian only where it was asked for, `novelty` (see
    `Evaluation`, of the least known atom) where it is known."""

    energy: float
    gradient: Vector
    hessian: Matrix | None = None
    novelty: float | None = None


class Space(Protocol):
    """The coordinates of a walk."""

    def basis(self, x: Vector) -> Float64[np.ndarray, "directions coordinates"]:
        """Orthonormal rows: the directions in which the walk may go from `x`."""
        ...

    def guess(self, x: Vector) -> Matrix:
        """A positive definite Hessian to start from, eV/Å²."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Walked:
    """The end of a walk.

    Attributes:
        x: Where it ended.
        energy: eV.
        gradient: eV/Å, in the directions that may move.
        hessian: The last one, eV/Å².
        exact: Whether that was computed at `x`, from the energy, not predicted or updated.
        converged: Whether the gradient fell below the demand and, for a saddle, one mode is negative.
        steps: Evaluations after the first.
        hessians: Hessians computed.
        fmax: Largest norm of three coordinates of the gradient, eV/Å.
        novelty: As in the `Reply` at `x`.
        why: What kept it from converging; empty where nothing did.
    """

    x: Vector
    energy: float
    gradient: Vector
    hessian: Matrix
    exact: bool
    converged: bool
    steps: int
    hessians: int
    fmax: float
    novelty: float | None
    why: str = ""


Walk: TypeAlias = Generator[Probe, Reply, Walked]


class _State:
    """Where a walk is."""

    def __init__(self, probe: Probe, reply: Reply, space: Space, plan: Plan, hessian: Matrix | None) -> None:
        self.space, self.plan, self.region, self.quick = space, plan, plan.region, plan.quick
        self.hessians = self.steps = self.age = 0
        self.best, self.best_step = np.inf, 0
        self.hessian = space.guess(probe.x) if hessian is None else hessian
        self.move_to(probe, reply)
        if hessian is not None and reply.hessian is None:
            self.exact, self.age = plan.saddle, 0

    def move_to(self, probe: Probe, reply: Reply) -> None:
        self.x, self.energy, self.novelty = probe.x, reply.energy, reply.novelty
        self.exact = probe.hessian == "true"
        if reply.hessian is not None:
            self.hessian, self.age = reply.hessian, 0
            self.hessians += 1
        else:
            self.age += 1
        self.basis = self.space.basis(self.x)
        self.full_gradient = reply.gradient
        self.gradient = self.basis.T @ (self.basis @ reply.gradient)
        self.rediagonalise()
        if self.fmax < 0.8 * self.best:
            self.best, self.best_step = self.fmax, self.steps

    @property
    def wanted(self) -> Hessian:
        """The Hessian to ask for at the next step."""
        if self.quick:
            return "quick"
        every = self.plan.exact_every
        return "true" if every > 0 and self.age + 1 >= every else "none"

    def lose_patience(self) -> bool:
        """Stop predicting Hessians where they have not led on for a while; whether that was just now."""
        if not self.quick or self.steps - self.best_step < PATIENCE:
            return False
        self.quick = False
        if not self.plan.saddle:
            self.hessian = self.space.guess(self.x)
            self.rediagonalise()
        return True

    @property
    def fmax(self) -> float:
        rows = self.gradient.reshape(-1, 3)
        return float(np.sqrt((rows**2).sum(axis=1)).max(initial=0.0))

    def rediagonalise(self) -> None:
        values, vectors = np.linalg.eigh(self.basis @ self.hessian @ self.basis.T)
        self.values, self.modes = values, vectors.T @ self.basis

    def ended(self, *, converged: bool, why: str = "") -> Walked:
        return Walked(
            x=self.x,
            energy=self.energy,
            gradient=self.gradient,
            hessian=self.hessian,
            exact=self.exact,
            converged=converged,
            steps=self.steps,
            hessians=self.hessians,
            fmax=self.fmax,
            novelty=self.novelty,
            why=why,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to walk.

    Attributes:
        saddle: To a saddle, not a minimum.
        region: Trust region at the start.
        fmax: Converged when no three coordinates of the gradient have a larger norm, eV/Å.
        steps: Evaluations after the first.
        exact_every: Steps from one true Hessian to the next, with updates between; 1 is every step, 0 never.
        quick: Take a predicted Hessian at every step, as long as that leads on.
    """

    saddle: bool
    region: TrustRegion
    fmax: float
    steps: int
    exact_every: int
    quick: bool


def minimise(
    x: Vector, space: Space, *, fmax: float, steps: int, exact_every: int = 0, quick: bool = False
) -> Walk:
    """Walk downhill to a minimum.

    Without Hessians the walk starts from the guess of the space; with them, a stationary point with negative
    modes is left again. For the other arguments see `Plan`.
    """
    region = for_minimum(len(x) // 3)
    plan = Plan(saddle=False, region=region, fmax=fmax, steps=steps, exact_every=exact_every, quick=quick)
    return _walk(x, space, plan, None, None)


def climb(
    x: Vector,
    space: Space,
    *,
    fmax: float,
    steps: int,
    exact_every: int,
    quick: bool = False,
    along: Vector | None = None,
    hessian: Matrix | None = None,
) -> Walk:
    """Walk to a saddle: uphill along one mode, downhill in all others.

    A true Hessian is computed at the start and, so that the number of negative modes is certain, at the end.

    Args:
        x: Start, Å.
        space: Its coordinates.
        fmax: See `Plan`, as for the next three.
        steps: Likewise.
        exact_every: Likewise.
        quick: Likewise.
        along: The mode most like this direction is followed at first, the lowest without it; afterwards the
            one most like that of the step before.
        hessian: The true one at the start, eV/Å², if it is known.
    """
    region = for_saddle(len(x) // 3)
    plan = Plan(saddle=True, region=region, fmax=fmax, steps=steps, exact_every=exact_every, quick=quick)
    direction = np.zeros_like(x) if along is None else np.asarray(along, dtype=np.float64)
    return _walk(x, space, plan, direction, hessian)


def _walk(x: Vector, space: Space, plan: Plan, direction: Vector | None, hessian: Matrix | None) -> Walk:
    first: Hessian = "none"
    if hessian is None and (plan.saddle or plan.exact_every > 0 or plan.quick):
        first = "true" if plan.saddle or not plan.quick else "quick"
    probe = Probe(x=x, hessian=first)
    state = _State(probe, (yield probe), space, plan, hessian)
    escapes = 0
    while True:
        if state.fmax <= plan.fmax:
            if not state.exact and (plan.saddle or plan.exact_every > 0 or plan.quick):
                probe = Probe(x=state.x, hessian="true")
                state.move_to(probe, (yield probe))
                continue
            surplus = int((state.values < -SADDLE_MODE).sum()) - (1 if plan.saddle else 0)
            if surplus == 0 or not state.exact:
                return state.ended(converged=True)
            if surplus < 0:
                return state.ended(converged=False, why="it ended in a minimum")
            if escapes == LARGEST_ESCAPES or state.steps >= plan.steps:
                return state.ended(converged=False, why=f"{surplus} surplus negative modes remain")
            escapes += 1
            state.steps += 1
            aside = state.x + OFF_SADDLE * _signed(state.modes[surplus - (0 if plan.saddle else 1)])
            probe = Probe(x=aside, hessian="true")
            state.move_to(probe, (yield probe))
            continue
        if state.steps >= plan.steps:
            return state.ended(converged=False, why=f"not converged in {plan.steps} steps")
        if state.lose_patience() and plan.saddle:
            probe = Probe(x=state.x, hessian="true")
            state.move_to(probe, (yield probe))
        uphill = None
        if direction is not None:
            uphill = followed(state.values, state.modes, direction)
            direction = state.modes[uphill]
        yield from _step(state, uphill)


def _step(state: _State, uphill: int | None) -> Generator[Probe, Reply, None]:
    """Try a step; keep it or shorten the radius."""
    state.steps += 1
    step = restricted_step(state.values, state.modes @ state.gradient, state.region.radius, uphill=uphill)
    move = step.vector @ state.modes
    probe = Probe(x=state.x + move, hessian=state.wanted)
    norm = float(np.linalg.norm(move))
    try:
        reply = yield probe
    except FAILURES as error:
        if state.region.radius <= 2.0 * norm and norm < 0.02:
            raise InputError(f"no step from here can be evaluated: {error}") from error
        state.region = state.region.after(predicted=1.0, actual=-1.0, norm=0.5 * norm)[0]
        return
    actual = energy_change(
        energies=(state.energy, reply.energy),
        gradients_along=(float(state.full_gradient @ move), float(reply.gradient @ move)),
        predicted=step.predicted_change,
    )
    state.region, keep = state.region.after(predicted=step.predicted_change, actual=actual, norm=norm)
    if reply.hessian is None:
        change = reply.gradient - state.full_gradient
        state.hessian = (
            hessian_update.updated(state.hessian, move, change, method=hessian_update.bofill)
            if state.plan.saddle
            else hessian_update.downhill(state.hessian, move, change)
        )
    if keep:
        state.move_to(probe, reply)
    elif reply.hessian is None:
        state.rediagonalise()
    else:
        state.hessians += 1


def followed(
    values: Float64[np.ndarray, " modes"], modes: Float64[np.ndarray, "modes coordinates"], direction: Vector
) -> int:
    """The mode to go up: the negative one most like `direction`, any if there is none, the lowest without a
    direction."""
    if not direction.any():
        return 0
    likeness = np.abs(modes @ direction)
    negative = values < 0.0
    return int(np.where(negative, likeness, -1.0 if negative.any() else likeness).argmax())


def _signed(mode: Vector) -> Vector:
    """The mode with its largest component positive, so that the choice of side is reproducible."""
    return mode * np.sign(mode[np.abs(mode).argmax()])
