"""The proper rotations of a molecule: how many turned copies of it cannot be told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float64, Int64

TOLERANCE: Final = 0.1
"""Å; a relaxation leaves atoms this far at most from where symmetry would have them."""


@dataclass(frozen=True, kw_only=True)
class RotationalSymmetry:
    """The group of proper rotations of a molecule.

    Attributes:
        number: Its order, the symmetry number σ of statistical mechanics; for linear molecules 1 or 2, as
            the rotations about the axis do not count.
        group: Its name: `C1`, `C2`, `D3`, `T`, `O`, `I`, …; `C∞` and `D∞` of linear molecules, `K` of an
            atom.
        tolerance: Å; no atom is farther from its turned partner. It is smaller than what was asked for where
            that took in some of the rotations of a group, but not all.
    """

    number: int
    group: str
    tolerance: float


def rotational_symmetry(atoms: Atoms, *, tolerance: float = TOLERANCE) -> RotationalSymmetry:
    """Find all proper rotations that carry a molecule into itself, atoms of equal element and mass for one
    another.

    Two atoms that span a plane with the centre are laid on every pair they could fall on; the permutation of
    all atoms that follows is a rotation of the molecule if the best superposition leaves no atom farther off
    than the tolerance. Small distortions of any kind do no harm, as nothing is told from equal moments of
    inertia.

    Args:
        atoms: The molecule, not periodic; not changed.
        tolerance: Å.

    Raises:
        InputError: The structure is periodic or empty, or the tolerance is not positive.
    """
    if atoms.pbc.any():
        raise InputError("the structure is periodic, but only molecules have a rotational symmetry number")
    if not (tolerance > 0.0 and math.isfinite(tolerance)):
        raise InputError(f"`tolerance` is {tolerance} but must be a positive length in Å")
    bare = atoms.copy()
    bare.set_constraint()
    rotations = rigid_motions(bare).rotations
    if rotations == 0:
        return RotationalSymmetry(number=1, group="K", tolerance=tolerance)
    positions = bare.positions - bare.positions.mean(axis=0)
    kinds = np.unique(np.stack([bare.numbers, bare.get_masses()]), axis=1, return_inverse=True)[1].ravel()
    if rotations == 2:
        same = _is_turned_end_over_end(positions, kinds, tolerance)
        return RotationalSymmetry(number=1 + same, group="D∞" if same else "C∞", tolerance=tolerance)
    found = _permutations(positions, kinds, tolerance)
    while not _is_group([permutation for permutation, _ in found]):
        tolerance *= 0.7
        found = [(permutation, off) for permutation, off in found if off <= tolerance]
    permutations = [permutation for permutation, _ in found]
    return RotationalSymmetry(
        number=len(permutations), group=_name_of_group(permutations), tolerance=tolerance
    )


def _is_turned_end_over_end(
    positions: Float64[np.ndarray, "atoms 3"], kinds: Int64[np.ndarray, " atoms"], tolerance: float
) -> bool:
    along = positions @ np.linalg.svd(positions)[2][0]
    there, back = np.argsort(along), np.argsort(-along)
    return bool(
        (kinds[there] == kinds[back]).all() and (np.abs(along[there] + along[back]) <= tolerance).all()
    )


def _permutations(
    positions: Float64[np.ndarray, "atoms 3"], kinds: Int64[np.ndarray, " atoms"], tolerance: float
) -> list[tuple[tuple[int, ...], float]]:
    """Every permutation of the atoms that a rotation makes, and how far it leaves the worst atom, Å."""
    radii = np.linalg.norm(positions, axis=1)
    alike = (kinds[:, None] == kinds) & (np.abs(radii[:, None] - radii) <= 2.0 * tolerance)
    first, second = _reference(positions, radii, alike.sum(axis=1))
    span = np.linalg.norm(positions[first] - positions[second])
    found: dict[tuple[int, ...], float] = {}
    for i in np.flatnonzero(alike[first]):
        for j in np.flatnonzero(alike[second]):
            if i == j or abs(np.linalg.norm(positions[i] - positions[j]) - span) > 4.0 * tolerance:
                continue
            turn = _rotation(positions[[first, second]], positions[[i, j]])
            permutation = _nearest(positions @ turn.T, positions, kinds)
            if permutation is None or permutation in found:
                continue
            target = positions[list(permutation)]
            off = np.linalg.norm(positions @ _rotation(positions, target).T - target, axis=1).max()
            if off <= tolerance:
                found[permutation] = float(off)
    return list(found.items())


def _reference(
    positions: Float64[np.ndarray, "atoms 3"],
    radii: Float64[np.ndarray, " atoms"],
    partners: Int64[np.ndarray, " atoms"],
) -> tuple[int, int]:
    """Two atoms in directions far from parallel that have few partners to fall on."""
    cosines = np.abs(positions @ positions.T) / np.maximum(np.outer(radii, radii), 1e-9)
    sines = np.sqrt(np.clip(1.0 - cosines**2, 0.0, 1.0)) * (radii > 0.25) * (radii > 0.25)[:, None]
    usable = sines >= 0.5 * sines.max()
    first, second = np.unravel_index(
        np.argmin(np.where(usable, np.outer(partners, partners), np.inf)), usable.shape
    )
    return int(first), int(second)


def _rotation(
    start: Float64[np.ndarray, "n 3"], end: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "3 3"]:
    """The proper rotation about the origin that best carries one set of points into the other (Kabsch)."""
    left, _, right = np.linalg.svd(end.T @ start)
    return left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right


def _nearest(
    moved: Float64[np.ndarray, "atoms 3"],
    positions: Float64[np.ndarray, "atoms 3"],
    kinds: Int64[np.ndarray, " atoms"],
) -> tuple[int, ...] | None:
    """For each moved atom the nearest of its kind; None if two want the same."""
    squared = ((moved[:, None] - positions) ** 2).sum(axis=2)
    nearest = np.where(kinds[:, None] == kinds, squared, np.inf).argmin(axis=1)
    return tuple(nearest.tolist()) if len(set(nearest.tolist())) == len(nearest) else None


def _is_group(permutations: list[tuple[int, ...]]) -> bool:
    members = set(permutations)
    arrays = [np.array(permutation) for permutation in permutations]
    return all(tuple(a[b].tolist()) in members for a in arrays for b in arrays)


def _name_of_group(permutations: list[tuple[int, ...]]) -> str:
    """Schoenflies symbol of a group of proper rotations, from its order and that of its highest axis."""
    number = len(permutations)
    axis = max(_order(np.array(permutation)) for permutation in permutations)
    if number == axis:
        return f"C{axis}"
    if number == 2 * axis:
        return f"D{axis}"
    return {12: "T", 24: "O", 60: "I"}.get(number, f"of order {number}")


def _order(permutation: Int64[np.ndarray, " atoms"]) -> int:
    power, order = permutation, 1
    identity = np.arange(len(permutation))
    while (power != identity).any():
        power, order = permutation[power], order + 1
    return order
