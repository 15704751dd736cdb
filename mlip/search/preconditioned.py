"""L-BFGS without line search for many structures as one system, preconditioned by their model Hessians."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.rigid_motions import rigid_motions
from mlip.search.model_hessian import model_hessian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from jaxtyping import Float64

    Images = Float64[np.ndarray, "images atoms 3"]

MEMORY: Final = 12
"""Steps that are remembered."""

LONGEST: Final = 0.15
"""Å; largest move of an atom in a step, to which the whole step is scaled."""

STALE: Final = 0.3
"""Å; once an atom has moved so far the model Hessians are made again."""

SOFTEST: Final = 5.0
"""eV/Å²; curvatures of the model below this are raised to it, as it does not know how soft soft modes are."""


class PreconditionedLBFGS:
    """Remembers steps and changes of forces; proposes the next step.

    Source: Nocedal, Wright, Numerical Optimization (2006), algorithm 7.4, with the inverse of the model
    Hessian
    in place of the multiple of the identity.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=MEMORY)
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._longest = LONGEST
        self._inverses: np.ndarray | None = None
        self._made_at: np.ndarray | None = None

    def forget(self) -> None:
        """Start anew, for the forces now mean something else."""
        self._pairs.clear()
        self._last = None

    def step(self, structures: Sequence[Atoms], forces: Images) -> Images:
        """The next move of each structure, Å.

        Args:
            structures: Where they are.
            forces: What moves them, eV/Å; not necessarily the gradient of anything.
        """
        positions = np.stack([atoms.positions for atoms in structures])
        if self._made_at is None or np.abs(positions - self._made_at).max() > STALE:
            self._inverses = np.stack([_inverse(atoms) for atoms in structures])
            self._made_at = positions.copy()
        self._learn(positions, forces)
        self._last = positions.copy(), forces.copy()
        move = self._two_loops(forces.ravel())
        if float(move @ forces.ravel()) <= 0.0:
            self._pairs.clear()
            move = self._two_loops(forces.ravel())
        longest = float(np.linalg.norm(move.reshape(-1, 3), axis=1).max(initial=0.0))
        return (move * min(1.0, self._longest / max(longest, 1e-12))).reshape(positions.shape)

    def reject(self, structures: Sequence[Atoms], forces: Images) -> None:
        """The last step led to `structures`, where the forces are far larger: remember that, and take shorter
        steps for a while. The next step is to be taken from where the last one began."""
        self._learn(np.stack([atoms.positions for atoms in structures]), forces)
        self.shorten()

    def shorten(self) -> None:
        """Take shorter steps for a while, the next from where the last one began."""
        self._last = None
        self._longest = max(0.3 * self._longest, 1e-3)

    def _learn(self, positions: Images, forces: Images) -> None:
        if self._last is None:
            return
        self._longest = min(LONGEST, 1.3 * self._longest)
        moved, change = positions - self._last[0], self._last[1] - forces
        if float((moved * change).sum()) > 1e-10:
            self._pairs.append((moved.ravel(), change.ravel()))

    def _two_loops(self, forces: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, " coordinates"]:
        direction = forces.copy()
        weights = []
        for moved, change in reversed(self._pairs):
            weight = moved @ direction / (moved @ change)
            direction -= weight * change
            weights.append(weight)
        direction = self._softened(direction)
        for (moved, change), weight in zip(self._pairs, reversed(weights), strict=True):
            direction += (weight - change @ direction / (moved @ change)) * moved
        return direction

    def _softened(self, vector: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, " coordinates"]:
        """The inverse model Hessian times the vector, scaled to fit the last change."""
        assert self._inverses is not None
        scale = 1.0
        if self._pairs:
            moved, change = self._pairs[-1]
            scale = min(1.0, float(moved @ change / (change @ self._solve(change))))
        return scale * self._solve(vector)

    def _solve(self, vector: Float64[np.ndarray, " coordinates"]) -> Float64[np.ndarray, " coordinates"]:
        assert self._inverses is not None
        return np.einsum("iab,ib->ia", self._inverses, vector.reshape(len(self._inverses), -1)).ravel()


def _inverse(atoms: Atoms) -> Float64[np.ndarray, "coordinates coordinates"]:
    """Of the model Hessian, among the motions that are not rigid."""
    inside = rigid_motions(atoms, mass_weighted=False).complement
    values, vectors = np.linalg.eigh(inside @ model_hessian(atoms) @ inside.T)
    modes = vectors.T @ inside
    return modes.T @ (modes / np.maximum(values, SOFTEST)[:, None])
