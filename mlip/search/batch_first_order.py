"""FIRE and L-BFGS for many structures at once, each with a state of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.search.batch_walker import by_size, displaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from mlip.search.batch_walker import Walker

LONGEST_MOVE: Final = 0.2
"""Å; longest step of FIRE, and longest row of a step of L-BFGS (as in ASE)."""

RETREAT: Final = 0.25
"""Fraction of a step that is tried next after one to where the structure could not be evaluated."""


@dataclass(eq=False)
class _Motion:
    """State of FIRE; and of both, the last place that could be evaluated with the step taken from there."""

    velocity: Float64[np.ndarray, "rows 3"]
    interval: float = 0.1
    mixing: float = 0.1
    downhill: int = 0
    moves: list[Float64[np.ndarray, " displacements"]] = field(default_factory=list)
    turns: list[Float64[np.ndarray, " displacements"]] = field(default_factory=list)
    positions: Float64[np.ndarray, "atoms 3"] | None = None
    cell: Float64[np.ndarray, "3 3"] | None = None
    gradient: Float64[np.ndarray, "rows 3"] | None = None
    step: Float64[np.ndarray, "rows 3"] | None = None


class _FirstOrder:
    """What both share: steps from tables of gradients, and the retreat from where nothing can be computed."""

    def advance(self, walkers: Sequence[Walker]) -> None:
        """Move each walker from where it has been looked at last, or back and less far."""
        for walker in walkers:
            if walker.memory is None:
                walker.memory = _Motion(np.zeros_like(walker.gradient))
        lost = [walker for walker in walkers if not np.isfinite(walker.objective)]
        for walker in lost:
            self._retreat(walker)
        for group in by_size([walker for walker in walkers if np.isfinite(walker.objective)]):
            width = max(len(walker.atoms) for walker in group) + 3
            forces = np.zeros((len(group), width, 3))
            for s, walker in enumerate(group):
                _write(forces[s], -walker.gradient)
            steps = self._steps([walker.memory for walker in group], forces)
            for walker, step in zip(group, steps, strict=True):
                motion: _Motion = walker.memory
                motion.positions = walker.atoms.positions.copy()
                motion.cell = walker.atoms.cell.array.copy()
                motion.gradient = walker.gradient
                motion.step = _read(step, len(walker.atoms))
                _move(walker, motion)

    def _steps(
        self, motions: list[_Motion], forces: Float64[np.ndarray, "structures rows 3"]
    ) -> Float64[np.ndarray, "structures rows 3"]:
        raise NotImplementedError

    def _retreat(self, walker: Walker) -> None:
        motion: _Motion = walker.memory
        assert motion.step is not None
        motion.step = RETREAT * motion.step
        motion.velocity[:] = 0.0
        motion.interval *= 0.5
        motion.moves.clear()
        motion.turns.clear()
        _move(walker, motion)


class Fire(_FirstOrder):
    """FIRE with the parameters of ASE (E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006))."""

    name: Final = "fire"
    LONGEST_INTERVAL: Final = 1.0
    MIXING: Final = 0.1
    PATIENCE: Final = 5

    def _steps(
        self, motions: list[_Motion], forces: Float64[np.ndarray, "structures rows 3"]
    ) -> Float64[np.ndarray, "structures rows 3"]:
        velocity = np.zeros_like(forces)
        for s, motion in enumerate(motions):
            _write(velocity[s], motion.velocity)
        power = np.einsum("srx,srx->s", forces, velocity)
        speed, force = (np.sqrt(np.einsum("srx,srx->s", a, a)) for a in (velocity, forces))
        for s, motion in enumerate(motions):
            if power[s] > 0.0:
                along = forces[s] * (speed[s] / max(force[s], 1e-300))
                velocity[s] += motion.mixing * (along - velocity[s])
                if motion.downhill > self.PATIENCE:
                    motion.interval = min(1.1 * motion.interval, self.LONGEST_INTERVAL)
                    motion.mixing *= 0.99
                motion.downhill += 1
            elif motion.step is not None:
                velocity[s] = 0.0
                motion.mixing, motion.downhill = self.MIXING, 0
                motion.interval *= 0.5
        intervals = np.array([motion.interval for motion in motions])[:, None, None]
        velocity += intervals * forces
        steps = intervals * velocity
        length = np.sqrt(np.einsum("srx,srx->s", steps, steps))
        for s, motion in enumerate(motions):
            motion.velocity = _read(velocity[s], len(motion.velocity) - 3)
        return steps / np.maximum(length / LONGEST_MOVE, 1.0)[:, None, None]


class Lbfgs(_FirstOrder):
    """L-BFGS with the parameters of ASE (J. Nocedal, Math. Comput. 35, 773 (1980)); steps along which the
    gradient does not rise are not learned from."""

    name: Final = "lbfgs"
    MEMORY: Final = 100
    STIFFNESS: Final = 70.0
    """eV/Å², of the first Hessian."""

    def _steps(
        self, motions: list[_Motion], forces: Float64[np.ndarray, "structures rows 3"]
    ) -> Float64[np.ndarray, "structures rows 3"]:
        count, size = len(motions), forces[0].size
        for s, motion in enumerate(motions):
            if motion.step is not None and motion.gradient is not None:
                now = -_read(forces[s], len(motion.gradient) - 3)
                move, turn = motion.step.ravel(), (now - motion.gradient).ravel()
                if move @ turn > 1e-12 * (move @ move):
                    motion.moves = [*motion.moves[-self.MEMORY + 1 :], move]
                    motion.turns = [*motion.turns[-self.MEMORY + 1 :], turn]
        longest = max(len(motion.moves) for motion in motions)
        moves, turns = np.zeros((2, longest, count, forces.shape[1], 3))
        for s, motion in enumerate(motions):
            for k, (move, turn) in enumerate(zip(motion.moves[::-1], motion.turns[::-1], strict=True)):
                _write(moves[k, s], move.reshape(-1, 3))
                _write(turns[k, s], turn.reshape(-1, 3))
        moves, turns = moves.reshape(longest, count, size), turns.reshape(longest, count, size)
        curvature = np.einsum("ksd,ksd->ks", moves, turns)
        inverse = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 0.0)
        q = -forces.reshape(count, size)
        shares = np.zeros((longest, count))
        for k in range(longest):
            shares[k] = inverse[k] * np.einsum("sd,sd->s", moves[k], q)
            q = q - shares[k][:, None] * turns[k]
        z = q / self.STIFFNESS
        for k in reversed(range(longest)):
            z = z + (shares[k] - inverse[k] * np.einsum("sd,sd->s", turns[k], z))[:, None] * moves[k]
        steps = -z.reshape(forces.shape)
        rows = np.linalg.norm(steps, axis=2).max(axis=1)
        return steps / np.maximum(rows / LONGEST_MOVE, 1.0)[:, None, None]


def _write(table: Float64[np.ndarray, "width 3"], rows: Float64[np.ndarray, "rows 3"]) -> None:
    """Atoms first, the cell last, in a table that may be wider."""
    table[: len(rows) - 3], table[-3:] = rows[:-3], rows[-3:]


def _read(table: Float64[np.ndarray, "width 3"], atoms: int) -> Float64[np.ndarray, "rows 3"]:
    return np.concatenate([table[:atoms], table[-3:]])


def _move(walker: Walker, motion: _Motion) -> None:
    assert motion.positions is not None
    assert motion.cell is not None
    assert motion.step is not None
    scales = None if walker.scale is None else np.array([walker.scale])
    positions, cells = displaced(motion.positions[None], motion.cell[None], motion.step[None], scales)
    walker.place(positions[0], cells[0])
