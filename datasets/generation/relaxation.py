"""Relaxations that keep every structure on the way, also under a force that makes or breaks a bond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlip.datasets.generation.labelling import LabelError, Labeller
from mlip.datasets.generation.topology import Array, Indices

FMAX = 0.02
"""eV/Å; relaxations stop here."""
MAX_STEP = 0.1
"""Å; the largest displacement of an atom in one step."""
_SOFTEST = 1.0  # eV/Å², least curvature of the first guess of the second derivatives
_STIFFEST = 150.0


@dataclass(frozen=True, eq=False)
class Labelled:
    """One geometry (Å) with energy (eV) and forces (eV/Å)."""

    positions: Array
    energy: float
    forces: Array


@dataclass(frozen=True)
class Push:
    """A constant force (eV/Å) that draws two atoms together, or apart if negative.

    It ends, with the relaxation, where their distance leaves `limits` (Å). This is the idea of artificial
    force induced reactions, with a constant force. Source: Maeda and Morokuma 2010, doi:10.1063/1.3457903.
    """

    first: int
    second: int
    force: float
    limits: tuple[float, float]


def relax(
    label: Labeller,
    positions: Array,
    *,
    steps: int,
    guess: Array | None = None,
    push: Push | None = None,
    fmax: float = FMAX,
) -> tuple[list[Labelled], bool]:
    """BFGS in Cartesian coordinates.

    Args:
        label: Energies and forces; those of the result do not contain the push.
        positions: (N, 3), Å.
        steps: Most steps.
        guess: (3N, 3N) second derivatives to begin with, eV/Å²; made positive definite. 70 eV/Å² without.
        push: A force to react under.
        fmax: Largest norm of a force at the end, eV/Å.

    Returns:
        Every structure from first to last, and whether `fmax` was reached.

    Raises:
        LabelError: The first structure has no label. A later one ends the relaxation.
    """
    curvature = np.eye(positions.size) * 70.0 if guess is None else positive(guess)
    path: list[Labelled] = []
    x = positions.ravel().copy()
    last: tuple[Array, Array] | None = None
    for _ in range(steps + 1):
        try:
            energy, forces = label(x.reshape(-1, 3), near=bool(path))
        except LabelError:
            if not path:
                raise
            return path, False
        path.append(Labelled(x.reshape(-1, 3).copy(), energy, forces))
        gradient = -(forces + _pushing(push, path[-1].positions)).ravel()
        if push is not None and not push.limits[0] < _distance(push, path[-1].positions) < push.limits[1]:
            return path, False
        if np.linalg.norm(gradient.reshape(-1, 3), axis=1).max() < fmax:
            return path, True
        if last is not None:
            curvature = _updated(curvature, x - last[0], gradient - last[1])
        last = x, gradient
        x = x + _step(curvature, gradient)
    return path, False


def positive(curvature: Array) -> Array:
    """The symmetric matrix with eigenvalues taken absolute and kept within bounds."""
    values, vectors = np.linalg.eigh(curvature)
    return np.asarray((vectors * np.clip(np.abs(values), _SOFTEST, _STIFFEST)) @ vectors.T)


def _step(curvature: Array, gradient: Array) -> Array:
    values, vectors = np.linalg.eigh(curvature)
    step = -vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 1e-3))
    longest = np.linalg.norm(step.reshape(-1, 3), axis=1).max()
    return np.asarray(step * min(1.0, MAX_STEP / longest))


def _updated(curvature: Array, dx: Array, dg: Array) -> Array:
    """The BFGS formula; left out where it would lose positive curvature along the step."""
    if dx @ dg < 1e-6 * np.linalg.norm(dx) * np.linalg.norm(dg):
        return curvature
    hx = curvature @ dx
    return np.asarray(curvature + np.outer(dg, dg) / (dx @ dg) - np.outer(hx, hx) / (dx @ hx))


def _distance(push: Push, positions: Array) -> float:
    return float(np.linalg.norm(positions[push.first] - positions[push.second]))


def _pushing(push: Push | None, positions: Array) -> Array:
    out = np.zeros_like(positions)
    if push is not None:
        along = positions[push.second] - positions[push.first]
        along /= np.linalg.norm(along)
        out[push.first], out[push.second] = push.force * along, -push.force * along
    return out


def kept(length: int, count: int) -> Indices:
    """Indices of `count` structures of a path: first, last, and more where it moves fast, at the start."""
    if length <= count:
        return np.arange(length)
    return np.unique(np.round((length - 1) * np.linspace(0, 1, count) ** 1.5).astype(np.int64))
