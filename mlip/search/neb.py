r"""Climbing-image nudged elastic band.

Images between two structures feel the force of the surface across the path and springs along it; the
highest one climbs. With the improved tangent $\hat\tau$ (along the higher neighbour; a weighted mean at
an extremum) the force is $F_\perp + (k_{i+1}|\tau^+| - k_i|\tau^-|)\hat\tau$, that on the climber $F -
2(F\cdot\hat\tau)\hat\tau$. Springs are stiffer the higher the images they join. Rigid motions are
projected out of forces and tangents.

There is no energy whose gradient this is, so steps are taken without line search, by L-BFGS for the whole
band, preconditioned by model Hessians of the images. All images of an iteration are evaluated in one
batch.

Sources: Henkelman, Jónsson, J. Chem. Phys. 113, 9978 (2000); Henkelman, Uberuaga, Jónsson, J. Chem. Phys.
113, 9901
(2000); Ásgeirsson et al., J. Chem. Theory Comput. 17, 4929 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.rigid_motions import rigid_motions
from mlip.search.lockstep import FAILURES, Ask, Search
from mlip.search.preconditioned import PreconditionedLBFGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms
    from jaxtyping import Float64

    from mlip.calculators.surface import Evaluation

    Images = Float64[np.ndarray, "images atoms 3"]

SPRINGS: Final = (1.0, 5.0)
"""eV/Å²; of the lowest and the highest images."""

CLIMB_BELOW: Final = 0.8
"""eV/Å; the highest image climbs once no force on the band is larger, and at the latest after
`CLIMB_AFTER`."""

CLIMB_AFTER: Final = 20
"""Iterations."""

RUNAWAY: Final = 0.5
"""eV; an image that climbs higher than this above where it began, and half of the barrier then, has left the
path: it is let go, to climb again later."""

LOOK_EVERY: Final = 4
"""Iterations between looks at the Hessian of the climber, where Hessians are cheap."""

LOOK_BELOW: Final = 1.0
"""eV/Å; force on the climber above which its Hessian is not looked at."""

LARGEST_RISE: Final = 2.5
"""Factor by which a step may raise the norm of all forces; one that raises it more is taken back."""

OVERLAP: Final = 0.7
"""|v·τ̂| of the lowest mode of the climber's Hessian, which must be negative, at which the band hands
over."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """A band of images.

    Attributes:
        images: From the first end to the last.
        energies: eV.
        highest: Number of the highest image; 0 or the last where the path only rises.
        tangent: Unit vector along the path at the highest image.
        fmax: Largest force on the highest image, that along the path reversed if it climbs, eV/Å.
        fmax_others: Largest force across the path and of springs on any other image, eV/Å.
        iterations: Steps taken.
        ready: Whether the highest image converged, or its Hessian has the mode of a saddle along the path.
        why: What kept it from that; empty where nothing did.
    """

    images: list[Atoms]
    energies: Float64[np.ndarray, " images"]
    highest: int
    tangent: Float64[np.ndarray, "atoms 3"]
    fmax: float
    fmax_others: float
    iterations: int
    ready: bool
    why: str = ""

    @property
    def minima(self) -> list[int]:
        """Images lower than both their neighbours."""
        e = self.energies
        return [i for i in range(1, len(e) - 1) if e[i] < e[i - 1] and e[i] < e[i + 1]]


def band_search(
    images: Sequence[Atoms],
    end_energies: tuple[float, float],
    *,
    fmax: float,
    fmax_others: float = np.inf,
    iterations: int,
    look: bool,
) -> Search[Band]:
    """A search, to be driven by `lockstep.run`, for the path of least energy.

    Args:
        images: A starting path, ends included, each aligned with the one before.
        end_energies: eV.
        fmax: Ready when no force on the climber is larger, eV/Å.
        fmax_others: Nor this on any other image.
        iterations: Give up after so many.
        look: Also look at the Hessian of the climber now and then, and stop once it is that of a saddle whose
            downhill mode is the path's: refining that is cheaper than polishing the band.
    """
    band = _Moving(images, end_energies)
    band.take((yield band.ask()))
    failures, why = 0, ""
    for _ in range(iterations):
        if band.climbing and band.fmax <= fmax and band.fmax_others <= fmax_others:
            break
        if look and band.climbing and band.iteration % LOOK_EVERY == 0 and band.fmax < LOOK_BELOW:
            (there,) = yield [Ask(atoms=band.images[band.highest], hessian="quick")]
            if there.hessian is not None and band.hands_over(there.hessian):
                return band.result(ready=True)
        band.step()
        try:
            band.accept((yield band.ask()))
            failures = 0
        except FAILURES as error:
            failures += 1
            if failures == 4:
                why = f"the band ran into structures that cannot be evaluated: {error}"
                break
            band.optimiser.shorten()
            band.back()
    ready = band.climbing and band.fmax <= fmax and band.fmax_others <= fmax_others
    return band.result(
        ready=ready, why=why or ("" if ready else f"not converged in {band.iteration} iterations")
    )


class _Moving:
    """A band on its way."""

    def __init__(self, images: Sequence[Atoms], end_energies: tuple[float, float]) -> None:
        self.images = [atoms.copy() for atoms in images]
        self.energies = np.array([end_energies[0], *[np.nan] * (len(images) - 2), end_energies[1]])
        self.climbing = False
        self.ceiling, self.climb_after = np.inf, CLIMB_AFTER
        self.iteration = 0
        self.highest = 0
        self.fmax = self.fmax_others = np.inf
        self.tangents = np.zeros_like(self.positions)
        self.optimiser = PreconditionedLBFGS()
        self.before: tuple[Images, list[Evaluation]] | None = None

    @property
    def positions(self) -> Images:
        return np.stack([atoms.positions for atoms in self.images])

    def ask(self) -> list[Ask]:
        return [Ask(atoms=atoms) for atoms in self.images[1:-1]]

    def take(self, found: list[Evaluation]) -> None:
        """Energies and forces of the images where they are now."""
        self.found = found
        self.energies[1:-1] = [one.energy for one in found]
        true = np.stack([one.forces for one in found])
        highest = int(self.energies.argmax())
        interior = 0 < highest < len(self.images) - 1
        if highest != self.highest and self.climbing:
            self.optimiser.forget()
        self.highest = highest
        projectors = [_projector(atoms) for atoms in self.images]
        true = np.stack([project(one) for project, one in zip(projectors[1:-1], true, strict=True)])
        self.tangents, springs = tangents_and_springs(self.positions, self.energies, projectors)
        self.forces = band_forces(
            true, self.tangents[1:-1], springs, climber=highest - 1 if self.climbing and interior else None
        )
        norms = np.linalg.norm(self.forces, axis=2).max(axis=1)
        self.fmax = float(np.linalg.norm(true[highest - 1], axis=1).max()) if interior else float(norms.max())
        others = np.delete(norms, highest - 1) if interior else norms
        self.fmax_others = float(others.max(initial=0.0))
        ready = norms.max() < CLIMB_BELOW or self.iteration >= self.climb_after
        top = float(self.energies[highest])
        if not self.climbing and ready and interior:
            above = max(top - float(max(self.energies[0], self.energies[-1])), 0.0)
            self._climb(True, ceiling=top + RUNAWAY + 0.5 * above, found=found)
        elif self.climbing and top > self.ceiling:
            self.climb_after = self.iteration + CLIMB_AFTER
            self._climb(False, ceiling=np.inf, found=found)

    def _climb(self, climbing: bool, *, ceiling: float, found: list[Evaluation]) -> None:
        """Let the highest image climb, or no longer."""
        self.climbing, self.ceiling = climbing, ceiling
        self.optimiser.forget()
        self.take(found)

    def step(self) -> None:
        self.iteration += 1
        self.before = self.positions[1:-1], self.found
        moves = self.optimiser.step(self.images[1:-1], self.forces)
        self._place(self.before[0] + moves)

    def accept(self, found: list[Evaluation]) -> None:
        """Take what was found after a step, or go back where it was far too long."""
        norm = float(np.linalg.norm(self.forces))
        climbed = self.climbing
        self.take(found)
        if (
            self.before is not None
            and climbed == self.climbing
            and float(np.linalg.norm(self.forces)) > LARGEST_RISE * norm
        ):
            self.optimiser.reject(self.images[1:-1], self.forces)
            self.back()

    def back(self) -> None:
        """To where the last step began."""
        if self.before is not None:
            positions, found = self.before
            self._place(positions)
            self.before = None
            self.take(found)

    def _place(self, positions: Images) -> None:
        for atoms, place in zip(self.images[1:-1], positions, strict=True):
            atoms.set_positions(place, apply_constraint=False)

    def hands_over(self, hessian: Float64[np.ndarray, "coordinates coordinates"]) -> bool:
        atoms = self.images[self.highest]
        inside = rigid_motions(atoms, mass_weighted=False).complement
        values, vectors = np.linalg.eigh(inside @ hessian @ inside.T)
        along = abs(float(vectors[:, 0] @ (inside @ self.tangents[self.highest].ravel())))
        return bool(values[0] < 0.0 and along > OVERLAP)

    def result(self, *, ready: bool, why: str = "") -> Band:
        return Band(
            images=self.images,
            energies=self.energies,
            highest=self.highest,
            tangent=self.tangents[self.highest],
            fmax=self.fmax,
            fmax_others=self.fmax_others,
            iterations=self.iteration,
            ready=ready,
            why=why,
        )


def _projector(
    atoms: Atoms,
) -> Callable[[Float64[np.ndarray, "atoms 3"]], Float64[np.ndarray, "atoms 3"]]:
    """Takes rigid motions and fixed coordinates out of forces and displacements."""
    rigid = rigid_motions(atoms, mass_weighted=False)

    def project(vectors: Float64[np.ndarray, "atoms 3"]) -> Float64[np.ndarray, "atoms 3"]:
        flat = np.where(rigid.free, vectors.ravel(), 0.0)
        return (flat - rigid.removed.T @ (rigid.removed @ flat)).reshape(-1, 3)

    return project


def tangents_and_springs(
    positions: Images, energies: Float64[np.ndarray, " images"], projectors: Sequence[Callable]
) -> tuple[Images, Float64[np.ndarray, " images"]]:
    """Unit tangents of all images (at the ends, towards the neighbour), and the force of the springs along
    them on the interior ones."""
    steps = np.diff(positions, axis=0)
    tangents = np.empty_like(positions)
    tangents[0], tangents[-1] = steps[0], steps[-1]
    for i in range(1, len(positions) - 1):
        project = projectors[i]
        tangents[i] = _tangent(project(steps[i]), project(steps[i - 1]), energies[i - 1 : i + 2])
    norms = np.sqrt((tangents**2).sum(axis=(1, 2), keepdims=True))
    lengths = np.sqrt((steps**2).sum(axis=(1, 2)))
    constants = _spring_constants(energies)
    pull = constants[1:] * lengths[1:] - constants[:-1] * lengths[:-1]
    return tangents / np.maximum(norms, 1e-12), pull


def _tangent(
    forward: Float64[np.ndarray, "atoms 3"],
    backward: Float64[np.ndarray, "atoms 3"],
    energies: Float64[np.ndarray, " 3"],
) -> Float64[np.ndarray, "atoms 3"]:
    before, here, after = energies
    if before < here < after:
        return forward
    if before > here > after:
        return backward
    rises = sorted((abs(after - here), abs(before - here)))
    high, low = (rises[1], rises[0]) if after > before else (rises[0], rises[1])
    return forward * high + backward * low if high + low > 0.0 else forward + backward


def _spring_constants(energies: Float64[np.ndarray, " images"]) -> Float64[np.ndarray, " springs"]:
    low, high = SPRINGS
    reference, top = max(energies[0], energies[-1]), float(energies.max())
    upper = np.maximum(energies[1:], energies[:-1])
    if top <= reference:
        return np.full(len(upper), low)
    return np.where(upper > reference, high - (high - low) * (top - upper) / (top - reference), low)


def band_forces(
    forces: Images,
    tangents: Images,
    springs: Float64[np.ndarray, " images"],
    *,
    climber: int | None,
) -> Images:
    """Forces that move the interior images.

    Args:
        forces: Of the surface, eV/Å.
        tangents: Unit vectors.
        springs: Force of the springs along the tangents, eV/Å.
        climber: Which of them climbs.
    """
    along = (forces * tangents).sum(axis=(1, 2))
    total = forces + (springs - along)[:, None, None] * tangents
    if climber is not None:
        total[climber] = forces[climber] - 2.0 * along[climber] * tangents[climber]
    return total
