"""The steps of a search for a transition state, as a search to be driven by `lockstep.run`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from mlip.alignment import aligned, rmsd
from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search.bonds import bond_changes, bond_matrix, describe_changes
from mlip.search.irc import path_search
from mlip.search.lockstep import FAILURES, Ask, Search, Tally, side_by_side, tallied
from mlip.search.mapping import conditions_differ, fixed_differ, map_atoms
from mlip.search.neb import Band, band_search
from mlip.search.paths import starting_paths
from mlip.search.reaction import Reaction, vibrations_of
from mlip.search.settling import AT_REST, Settled, settling
from mlip.search.stationary import EXACT_EVERY, StationaryPoint, check_demand, saddle_search
from mlip.search.verdict import Kind, Verdict, describe_connection, judge_ends, judge_saddle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from mlip.search.irc import ReactionPath
    from mlip.search.mapping import Mapping
    from mlip.search.vibrations import Vibrations

IMAGES: Final = 11
"""Of a band, ends included."""

FMAX: Final = 0.01
"""eV/Å; of saddles and minima."""

ROUGH, FINE = 0.2, 0.05
"""eV/Å; force on the climber at which a band is refined to a saddle, at first, and once that went wrong."""

BAND_ITERATIONS: Final = 100
"""Of a band, each time it is taken up."""

MOST_ATTEMPTS: Final = 3
"""Bands that are refined, of one reaction."""

LIKE_THE_PATH: Final = 0.3
"""Overlap of a negative mode with the tangent of the band, below which refining its top is no use."""

ALIKE: Final = 0.8
"""Overlap of the lowest modes of the predicted and the true Hessian above which the former is used."""

SADDLE_STEPS: Final = 100
MINIMUM_STEPS: Final = 200

IDENTICAL: Final = 0.05
"""Å; relaxed ends with the same bonds and a smaller RMSD are one minimum."""

_RANK: Final = get_args(Kind)
"""Verdicts on an attempt, the most telling first."""


@dataclass(frozen=True, kw_only=True)
class Demands:
    """How a transition state is searched for.

    Attributes:
        images: Of a band, ends included, at least 5.
        fmax: Of saddles and minima, eV/Å.
    """

    images: int = IMAGES
    fmax: float = FMAX

    def __post_init__(self) -> None:
        """Check."""
        check_demand(self.fmax, 0)
        if self.images < 5:
            raise InputError(f"`images` is {self.images} but must be at least 5, ends included")


@dataclass
class _Findings:
    """What a search has found so far."""

    demands: Demands
    predicts: bool
    tally: Tally = field(default_factory=Tally)
    reactant: Vibrations | None = None
    product: Vibrations | None = None
    ends: tuple[Settled, ...] = ()
    mapping: Mapping | None = None
    band: Band | None = None
    log: list[str] = field(default_factory=list)
    attempts: list[Reaction] = field(default_factory=list)

    def reaction(self, verdict: Verdict, **found: object) -> Reaction:
        return Reaction(
            verdict=verdict,
            reactant=self.reactant,
            product=self.product,
            mapping=self.mapping,
            band=self.band,
            evaluations=self.tally.evaluations,
            hessians=self.tally.hessians,
            log=list(self.log),
            **found,  # type: ignore[arg-type]
        )

    def best(self) -> Reaction:
        """The attempt that got furthest, with the counts and log of all."""
        best = min(self.attempts, key=lambda attempt: _RANK.index(attempt.verdict.kind))
        return replace(
            best, evaluations=self.tally.evaluations, hessians=self.tally.hessians, log=list(self.log)
        )


def reaction_search(reactant: Atoms, product: Atoms, *, demands: Demands, predicts: bool) -> Search[Reaction]:
    """A search between two ends, to be driven by `lockstep.run`; `predicts` is whether the surface predicts
    Hessians."""
    state = _Findings(demands=demands, predicts=predicts)
    try:
        return (yield from tallied(_between(reactant, product, state), state.tally))
    except FAILURES as error:
        return state.reaction(Verdict(kind="failed", text=f"a structure cannot be evaluated: {error}"))


def guess_search(guess: Atoms, *, demands: Demands, predicts: bool) -> Search[Reaction]:
    """A search from a guess, to be driven by `lockstep.run`."""
    state = _Findings(demands=demands, predicts=predicts)
    try:
        return (yield from tallied(_from_guess(guess, state), state.tally))
    except FAILURES as error:
        return state.reaction(Verdict(kind="failed", text=f"a structure cannot be evaluated: {error}"))


def _between(reactant: Atoms, product: Atoms, state: _Findings) -> Search[Reaction]:
    if sorted(reactant.numbers) != sorted(product.numbers):
        formulas = reactant.get_chemical_formula(), product.get_chemical_formula()
        text = f"the reactant is {formulas[0]}, the product {formulas[1]}: no reaction connects them"
        return state.reaction(Verdict(kind="different formulas", text=text))
    differ = conditions_differ(reactant, product)
    if differ:
        return state.reaction(Verdict(kind="different conditions", text=differ))
    try:
        state.mapping = map_atoms(reactant, product)
    except InputError as error:
        return state.reaction(Verdict(kind="atoms not matched", text=str(error)))
    if not state.mapping.given:
        state.log.append("the atoms of the product were put into the reactant's order")
    ordered = product[state.mapping.order.tolist()]
    differ = fixed_differ(reactant, ordered)
    if differ:
        return state.reaction(Verdict(kind="different conditions", text=differ))
    ordered.set_constraint(reactant.constraints)
    ends = yield from side_by_side(
        [
            settling(atoms, fmax=state.demands.fmax, steps=MINIMUM_STEPS, quick=state.predicts)
            for atoms in (reactant, ordered)
        ]
    )
    objection = _take_ends((reactant, ordered), ends, state)
    if objection is not None:
        return state.reaction(objection)
    yield from _attempts(state)
    return state.best()


def _take_ends(given: tuple[Atoms, Atoms], ends: Sequence[Settled], state: _Findings) -> Verdict | None:
    state.ends = tuple(ends)
    state.reactant, state.product = ends[0].vibrations, ends[1].vibrations
    for name, start, end in zip(("reactant", "product"), given, ends, strict=True):
        changes = bond_changes(bond_matrix(start), bond_matrix(end.vibrations.atoms))
        if any(changes):
            state.log.append(f"the {name} relaxed to another species: {describe_changes(start, *changes)}")
        if not end.minimum:
            state.log.append(f"the {name} is no relaxed minimum: {end.why}")
            if end.vibrations.fmax > AT_REST:
                return Verdict(kind="end not converged", text=f"the {name} could not be relaxed: {end.why}")
    first, second = state.reactant.atoms, state.product.atoms
    same = bool((bond_matrix(first) == bond_matrix(second)).all())
    if same and rmsd(second, first) < IDENTICAL:
        text = f"reactant and product relax to the same minimum (RMSD {rmsd(second, first):.3f} Å)"
        return Verdict(kind="identical ends", text=text)
    return None


def _attempts(state: _Findings) -> Search[None]:
    """The best starting path with a quick hand-over first. If that saddle belongs to something else, the next
    path; if it was none, the same band polished."""
    assert state.reactant is not None
    assert state.product is not None
    first, last = state.reactant, state.product
    paths = yield from _ranked_paths(first, last, state)
    waiting: list[tuple[list[Atoms], float]] = [(paths[0], ROUGH)]
    later: list[tuple[list[Atoms], float]] = [(images, FINE) for images in paths[1:]]
    polished = False
    while waiting and len(state.attempts) < MOST_ATTEMPTS:
        images, fmax = waiting.pop(0)
        search = band_search(
            images,
            (first.energy, last.energy),
            fmax=fmax,
            fmax_others=np.inf if fmax == ROUGH else 5.0 * fmax,
            iterations=BAND_ITERATIONS,
            look=state.predicts and fmax == ROUGH,
        )
        try:
            band = yield from search
            reached = yield from _attempt(band, state)
        except FAILURES as error:
            text = f"a structure cannot be evaluated: {error}"
            state.attempts.append(state.reaction(Verdict(kind="failed", text=text)))
            reached, band = False, None
        if reached:
            return
        elsewhere = state.attempts[-1].verdict.kind in ("one-sided", "unintended", "same basin")
        polish = [] if band is None or polished else [(band.images, FINE)]
        polished = True
        waiting = [*waiting, *later, *polish] if elsewhere else [*polish, *waiting, *later]
        later = []


def _ranked_paths(first: Vibrations, last: Vibrations, state: _Findings) -> Search[list[list[Atoms]]]:
    """Starting paths, that with the lowest top first; those that cannot be evaluated are left out."""
    frame = aligned(last.atoms, first.atoms)
    candidates: list[tuple[float, str, list[Atoms]]] = []
    for name, positions in starting_paths(first.atoms, frame, state.demands.images).items():
        images = []
        for place in positions:
            image = first.atoms.copy()
            image.set_positions(place, apply_constraint=False)
            images.append(image)
        try:
            found = yield [Ask(atoms=image) for image in images[1:-1]]
        except FAILURES as error:
            state.log.append(f"the {name} path cannot be evaluated: {error}")
            continue
        candidates.append((max(one.energy for one in found) - first.energy, name, images))
    if not candidates:
        raise InputError("no path between the ends can be evaluated")
    candidates.sort(key=lambda candidate: candidate[0])
    tops = ", ".join(f"{name} {top:.2f} eV" for top, name, _ in candidates)
    state.log.append(f"tops of the starting paths: {tops}")
    return [images for _, _, images in candidates]


def _attempt(band: Band, state: _Findings) -> Search[bool]:
    """Refine the top of a band and judge; whether that was what was asked for."""
    state.band = band
    state.log.append(
        f"band: {band.iterations} iterations, force on the climber {band.fmax:.3f} eV/Å"
        + (f", {band.why}" if band.why else "")
    )
    if band.highest in (0, len(band.images) - 1):
        text = "the energy only rises from one end to the other: there is no barrier between them on the path"
        state.attempts.append(state.reaction(Verdict(kind="no barrier", text=text)))
        return False
    attempt = yield from _refined(band.images[band.highest], band.tangent, state)
    if not band.ready and attempt.verdict.kind == "saddle not converged":
        text = f"the path is {band.why} and its top led to no saddle: {attempt.verdict.text}"
        attempt = state.reaction(Verdict(kind="path not converged", text=text), saddle=attempt.saddle)
    state.log.append(f"verdict: {attempt.verdict.kind}: {attempt.verdict.text}")
    state.attempts.append(attempt)
    return attempt.verdict.reached


def _refined(guess: Atoms, tangent: np.ndarray | None, state: _Findings) -> Search[Reaction]:
    """Saddle, path down, ends, verdict."""
    (there,) = yield [Ask(atoms=guess, hessian="true")]
    trusted = yield from _trusted(guess, there.hessian, state)
    if tangent is not None and there.hessian is not None:
        along = _overlap(guess, there.hessian, tangent)
        if along < LIKE_THE_PATH:
            text = f"no downhill mode at the top of the path lies along it (overlap {along:.2f})"
            return state.reaction(Verdict(kind="saddle not converged", text=text))
    saddle = yield from saddle_search(
        guess,
        fmax=state.demands.fmax,
        steps=SADDLE_STEPS,
        exact_every=EXACT_EVERY,
        quick=trusted,
        along=tangent,
        hessian=there.hessian,
    )
    state.log.append(f"saddle search: {saddle.steps} steps, {saddle.fmax:.4f} eV/Å {saddle.why}".rstrip())
    if not saddle.exact:
        text = f"the saddle search failed: {saddle.why}"
        return state.reaction(Verdict(kind="saddle not converged", text=text))
    found = vibrations_of(saddle)
    wrong = judge_saddle(found.modes)
    if wrong is not None:
        return state.reaction(wrong, saddle=found)
    if saddle.fmax > state.demands.fmax:
        text = f"the saddle search failed: {saddle.why}"
        return state.reaction(Verdict(kind="saddle not converged", text=text), saddle=found)
    known = _known(saddle, state)
    if known is not None:
        return known
    path = yield from path_search(saddle, hessians="quick" if trusted else "none")
    return (yield from _judged(found, path, state))


def _trusted(atoms: Atoms, true: np.ndarray | None, state: _Findings) -> Search[bool]:
    """Whether the Hessian that the surface predicts has the lowest mode of the true one, and its
    curvature."""
    if not state.predicts or true is None:
        return False
    (there,) = yield [Ask(atoms=atoms, hessian="quick")]
    if there.hessian is None:
        return False
    inside = rigid_motions(atoms, mass_weighted=False).complement
    values, vectors = np.linalg.eigh(inside @ true @ inside.T)
    mode = vectors[:, 0] @ inside
    predicted = np.linalg.eigh(inside @ there.hessian @ inside.T)
    alike = abs(float(predicted[1][:, 0] @ vectors[:, 0]))
    ratio = float(mode @ there.hessian @ mode) / float(values[0])
    agrees = alike > ALIKE and 0.5 < ratio < 2.0
    state.log.append(
        f"predicted Hessian at the top {'agrees' if agrees else 'disagrees'} with the true one: lowest modes "
        f"overlap {alike:.2f}, curvature {ratio:.2f} of the true one"
    )
    return agrees


def _overlap(atoms: Atoms, hessian: np.ndarray, tangent: np.ndarray) -> float:
    """|v·τ̂| of the negative mode that is most like the tangent; 0 if none is negative."""
    inside = rigid_motions(atoms, mass_weighted=False).complement
    values, vectors = np.linalg.eigh(inside @ hessian @ inside.T)
    along = np.abs(vectors.T @ (inside @ tangent.ravel()))[values < 0.0]
    return float(along.max(initial=0.0))


def _known(saddle: StationaryPoint, state: _Findings) -> Reaction | None:
    """An earlier attempt that ended in the same saddle."""
    for attempt in state.attempts:
        if (
            attempt.saddle is not None
            and attempt.path is not None
            and abs(attempt.saddle.energy - saddle.energy) < 1e-3
            and rmsd(attempt.saddle.atoms, saddle.atoms) < IDENTICAL
        ):
            return attempt
    return None


def _judged(saddle: Vibrations, path: ReactionPath, state: _Findings) -> Search[Reaction]:
    """Settle the ends of the path and compare them with those asked for."""
    branches = path.backward, path.forward
    settled = []
    for branch in branches:
        if branch.end is None or branch.end.fmax > AT_REST:
            why = branch.why or "its end could not be relaxed"
            text = f"the path down from the saddle does not reach a minimum on one side: {why}"
            return state.reaction(Verdict(kind="ends not reached", text=text), saddle=saddle, path=path)
        settled.append((yield from _settled_end(branch.end, state)))
    missing = [one.why for one in settled if not one.minimum]
    if missing:
        text = f"an end of the path down from the saddle is no minimum: {missing[0]}"
        return state.reaction(Verdict(kind="ends not reached", text=text), saddle=saddle, path=path)
    ends = settled[0].vibrations.atoms, settled[1].vibrations.atoms
    if state.mapping is None or state.reactant is None or state.product is None:
        state.reactant, state.product = settled[0].vibrations, settled[1].vibrations
        return state.reaction(describe_connection(ends), saddle=saddle, path=path)
    verdict = judge_ends(state.reactant.atoms, state.product.atoms, ends)
    backwards = _runs_backwards(ends, state.reactant.atoms, state.product.atoms)
    return state.reaction(verdict, saddle=saddle, path=path, reversed_path=backwards)


def _settled_end(end: StationaryPoint, state: _Findings) -> Search[Settled]:
    """The end of a path, relaxed to a minimum; of the ends asked for it is known whether they are one."""
    for known in state.ends:
        there = known.vibrations
        if abs(there.energy - end.energy) < 1e-3 and rmsd(end.atoms, there.atoms) < IDENTICAL:
            return known
    return (
        yield from settling(
            end.atoms, fmax=state.demands.fmax, steps=MINIMUM_STEPS, quick=state.predicts, start=end
        )
    )


def _runs_backwards(ends: tuple[Atoms, Atoms], reactant: Atoms, product: Atoms) -> bool:
    straight = rmsd(ends[0], reactant) + rmsd(ends[1], product)
    crossed = rmsd(ends[1], reactant) + rmsd(ends[0], product)
    return crossed < straight


def _from_guess(guess: Atoms, state: _Findings) -> Search[Reaction]:
    attempt = yield from _refined(guess, None, state)
    state.log.append(f"verdict: {attempt.verdict.kind}: {attempt.verdict.text}")
    state.attempts.append(attempt)
    return state.best()
