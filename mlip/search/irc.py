r"""Intrinsic reaction coordinate: the path of steepest descent from a saddle, in mass-weighted coordinates.

Each step is the local quadratic approximation: with gradient $g_i$ and curvature $\lambda_i$ in the
eigenbasis of the mass-weighted Hessian, steepest descent has $q_i(t) = -g_i (1 - e^{-\lambda_i
t})/\lambda_i$ and the arc length grows as $ds/dt = \sqrt{\sum g_i^2 e^{-2\lambda_i t}}$. Both directions
run side by side.

Source: Page, McIver, J. Chem. Phys. 88, 922 (1988).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search.hessian_update import bofill, updated
from mlip.search.lockstep import FAILURES, Ask, Hessian, Search, run, side_by_side
from mlip.search.stationary import AtomSpace, StationaryPoint, minimum_search, with_true_hessians
from mlip.search.verdict import NOISE
from mlip.search.vibrations import format_frequency
from mlip.units import INVERSE_CM, VIBRATIONAL_QUANTUM

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64

    from mlip.calculators.surface import Surface

    Vector = Float64[np.ndarray, " coordinates"]
    Matrix = Float64[np.ndarray, "coordinates coordinates"]

STEP: Final = 0.1
"""Å√amu."""

POINTS: Final = 150
"""In each direction, at most."""

FIRST_DROP: Final = 0.03
"""eV; by how much the first displacement from the saddle would lower a quadratic surface."""

FIRST_LENGTH: Final = (0.02, 0.3)
"""Å√amu; bounds of that displacement."""

FLAT: Final = 0.05
"""eV/Å; the path has come near a minimum when no force is larger, after larger ones."""

END_FMAX: Final = 0.02
"""eV/Å; to which the ends are relaxed. Fragments that just parted are in no hurry to come to rest."""

END_STEPS: Final = 300
"""Of the relaxation of each end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch:
    """One side of the path.

    Attributes:
        structures: From the first point off the saddle.
        energies: eV.
        arc: Distance from the saddle along the path, Å√amu.
        finished: Whether the path came near a minimum, rather than to its last allowed point.
        end: The minimum found from its last point; None if that could not be evaluated.
        why: What went wrong; empty where nothing did.
    """

    structures: list[Atoms]
    energies: Float64[np.ndarray, " points"]
    arc: Float64[np.ndarray, " points"]
    finished: bool
    end: StationaryPoint | None
    why: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReactionPath:
    """Both branches of the path through a saddle; which is which has no meaning."""

    saddle: StationaryPoint
    backward: Branch
    forward: Branch

    @property
    def structures(self) -> list[Atoms]:
        """From the end of one branch over the saddle to the end of the other."""
        return [*reversed(self.backward.structures), self.saddle.atoms, *self.forward.structures]

    @property
    def energies(self) -> Float64[np.ndarray, " points"]:
        """Along `structures`, eV."""
        return np.concatenate([self.backward.energies[::-1], [self.saddle.energy], self.forward.energies])

    @property
    def arc(self) -> Float64[np.ndarray, " points"]:
        """Along `structures`, Å√amu; zero at the saddle."""
        return np.concatenate([-self.backward.arc[::-1], [0.0], self.forward.arc])


def reaction_path(
    saddle: StationaryPoint,
    calculator: BaseCalculator | Surface,
    *,
    step: float = STEP,
    points: int = POINTS,
    end_steps: int = END_STEPS,
) -> ReactionPath:
    """Follow the path downhill from a saddle on both sides and relax its ends.

    Args:
        saddle: With a Hessian computed there that has one negative mode; more are taken for noise below
            10 cm⁻¹.
        calculator: Any ASE calculator, or a `Surface`.
        step: Å√amu.
        points: On each side, at most.
        end_steps: Of the relaxation of each end.

    Raises:
        InputError: `saddle` is none, or an argument is not as above.
    """
    if not (step > 0.0 and points >= 1):
        raise InputError(f"`step` is {step} and `points` {points}, but both must be positive")
    surface = as_surface(calculator)
    search = path_search(saddle, hessians="none", step=step, points=points, end_steps=end_steps)
    return run(surface, [search], true=with_true_hessians(surface))[0]


def path_search(
    saddle: StationaryPoint,
    *,
    hessians: Hessian,
    step: float = STEP,
    points: int = POINTS,
    end_steps: int = END_STEPS,
) -> Search[ReactionPath]:
    """The same as a search, to be driven by `lockstep.run`.

    `hessians` are those asked for at each point; with "none" that of the saddle is updated.
    """
    mode, curvature = downhill_mode(saddle)
    first = float(np.clip(np.sqrt(2.0 * FIRST_DROP / -curvature), *FIRST_LENGTH))
    backward, forward = yield from side_by_side(
        [_branch(saddle, sign * first * mode, hessians, step, points, end_steps) for sign in (-1.0, 1.0)]
    )
    return ReactionPath(saddle=saddle, backward=backward, forward=forward)


def downhill_mode(saddle: StationaryPoint) -> tuple[Vector, float]:
    """The negative mode of a saddle in mass-weighted coordinates, its largest component positive, and its
    curvature, eV/Å²/amu.

    Raises:
        InputError: No mode is negative, or several are by more than `NOISE`.
    """
    if not saddle.exact:
        raise InputError("the Hessian of the saddle was updated, not computed there: compute it first")
    inside = rigid_motions(saddle.atoms).complement
    roots = _roots(saddle.atoms)
    values, vectors = np.linalg.eigh(inside @ (saddle.hessian / np.outer(roots, roots)) @ inside.T)
    if values[0] >= 0.0:
        raise InputError("the structure has no negative mode, so no path leads down from it: it is no saddle")
    quanta = VIBRATIONAL_QUANTUM * np.sqrt(np.maximum(-values, 0.0)) / INVERSE_CM
    if (quanta > NOISE).sum() > 1:
        listed = ", ".join(format_frequency(-float(quantum)) for quantum in quanta[quanta > NOISE])
        raise InputError(
            f"the structure has several imaginary modes, {listed} cm⁻¹, so more than one path leads down "
            "from it: refine it to a first-order saddle"
        )
    mode = vectors[:, 0] @ inside
    return mode * np.sign(mode[np.abs(mode).argmax()]), float(values[0])


def _roots(atoms: Atoms) -> Vector:
    return np.repeat(np.sqrt(atoms.get_masses()), 3)


def _branch(
    saddle: StationaryPoint, first: Vector, hessians: Hessian, step: float, points: int, end_steps: int
) -> Search[Branch]:
    space, roots = AtomSpace(saddle.atoms), _roots(saddle.atoms)
    x = saddle.atoms.positions.ravel() + first / roots
    gradient, hessian = -saddle.forces.ravel(), saddle.hessian
    x_before = saddle.atoms.positions.ravel()
    structures: list[Atoms] = []
    energies: list[float] = []
    arc, risen, finished, rises, why = [float(np.linalg.norm(first))], False, False, 0, ""
    while True:
        try:
            (found,) = yield [Ask(atoms=space.at(x), hessian=hessians)]
        except FAILURES as error:
            why = f"a point of the path cannot be evaluated: {error}"
            break
        reply = space.reply(found)
        if reply.hessian is None:
            hessian = updated(hessian, x - x_before, reply.gradient - gradient, method=bofill)
        else:
            hessian = reply.hessian
        x_before, gradient = x, reply.gradient
        structures.append(space.at(x))
        energies.append(reply.energy)
        rises += len(energies) > 1 and energies[-1] > energies[-2]
        largest = float(np.linalg.norm(gradient.reshape(-1, 3), axis=1).max())
        risen = risen or largest > 2.0 * FLAT
        if rises == 2 or (risen and largest < FLAT) or (len(energies) > 20 and largest < 0.5 * FLAT):
            finished = True
            break
        if len(energies) == points:
            why = f"no minimum within {points} points"
            break
        move = quadratic_descent(space.at(x), gradient, hessian, step)
        x = x + move / roots
        arc.append(arc[-1] + float(np.linalg.norm(move)))
    end = None
    if structures:
        end = yield from _relaxed_end(structures[int(np.argmin(energies))], hessians == "quick", end_steps)
    return Branch(
        structures=structures,
        energies=np.array(energies),
        arc=np.array(arc[: len(structures)]),
        finished=finished,
        end=end,
        why=why,
    )


def _relaxed_end(atoms: Atoms, quick: bool, steps: int) -> Search[StationaryPoint | None]:
    try:
        return (yield from minimum_search(atoms, fmax=END_FMAX, steps=steps, quick=quick))
    except FAILURES:
        return None


def quadratic_descent(atoms: Atoms, gradient: Vector, hessian: Matrix, step: float) -> Vector:
    """The move of length `step` along steepest descent on the quadratic surface at `atoms`, mass-weighted.

    Args:
        atoms: Its masses, rigid motions and fixed atoms count.
        gradient: eV/Å.
        hessian: eV/Å².
        step: Å√amu; the move is shorter where the descent ends in a minimum before.
    """
    roots = _roots(atoms)
    inside = rigid_motions(atoms).complement
    values, vectors = np.linalg.eigh(inside @ (hessian / np.outer(roots, roots)) @ inside.T)
    modes = vectors.T @ inside
    slope = modes @ (gradient / roots)
    speed = float(np.linalg.norm(slope))
    if speed == 0.0:
        return np.zeros_like(gradient)
    time, length, parts = 0.0, 0.0, 64
    for _ in range(16 * parts):
        now = float(np.sqrt((slope**2 * np.exp(-2.0 * values * time)).sum()))
        if now < 1e-3 * speed:
            break
        lapse = min(step / parts, step - length) / now
        middle = float(np.sqrt((slope**2 * np.exp(-2.0 * values * (time + 0.5 * lapse))).sum()))
        time += lapse
        length += middle * lapse
        if length >= step * (1.0 - 1e-9):
            break
    exponent = values * time
    small = np.abs(exponent) < 1e-12
    spread = np.where(small, time, -np.expm1(-exponent) / np.where(small, 1.0, values))
    return (-slope * spread) @ modes
