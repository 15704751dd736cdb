"""Superposition of structures whose atoms are in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float64


def superposed(
    mobile: Float64[np.ndarray, "atoms 3"], target: Float64[np.ndarray, "atoms 3"]
) -> Float64[np.ndarray, "atoms 3"]:
    """`mobile` shifted and turned, never mirrored, onto `target`: least sum of squared distances.

    Source: Kabsch, Acta Cryst. A34, 827 (1978).
    """
    centre = target.mean(axis=0)
    centred = mobile - mobile.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ (target - centre))
    sign = np.sign(np.linalg.det(left @ right))
    return centred @ (left * np.array([1.0, 1.0, sign])) @ right + centre


def aligned(mobile: Atoms, target: Atoms) -> Atoms:
    """A copy of `mobile` brought onto `target` without changing its energy: turned and shifted if it is a
    free molecule; in a periodic structure each atom goes to its image nearest to the target, and the mean
    drift is taken out; with constraints nothing but the former."""
    moved: Atoms = mobile.copy()
    if moved.pbc.any():
        from ase.geometry import find_mic

        steps = find_mic(mobile.positions - target.positions, mobile.cell, mobile.pbc)[0]
        if not mobile.constraints:
            steps = steps - steps.mean(axis=0)
        moved.set_positions(target.positions + steps, apply_constraint=False)
    elif not mobile.constraints:
        moved.set_positions(superposed(mobile.positions, target.positions))
    return moved


def rmsd(first: Atoms, second: Atoms) -> float:
    """Root mean squared distance of atoms after alignment, Å; atoms are compared one by one, in order."""
    apart = aligned(first, second).positions - second.positions
    return float(np.sqrt((apart**2).sum(axis=1).mean()))
