"""The point group of a molecule, and in how many ways it can be turned onto itself."""

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
_NEAR: Final = 0.1
"""How far the trace of a matrix may be from that of an inversion or a mirror: a turn by 18°."""


@dataclass(frozen=True, kw_only=True)
class PointGroup:
    """The point group of a molecule.

    Attributes:
        name: Schoenflies symbol: `C1`, `Cs`, `C2v`, `D3d`, `Td`, …; `C∞v` and `D∞h` of linear molecules,
            `Kh` of an atom.
        symmetry_number: Number of its proper rotations, σ of statistical mechanics; for linear molecules 1
            or 2, as the rotations about the axis do not count.
        tolerance: Å; no atom is farther from its turned partner. It is smaller than what was asked for where
            that took in some of the rotations of a group, but not all.
    """

    name: str
    symmetry_number: int
    tolerance: float


Operation = tuple[tuple[int, ...], float, "Float64[np.ndarray, '3 3']"]
"""Where the atoms go, how far it leaves the worst of them, Å, and its matrix."""


def point_group(atoms: Atoms, *, tolerance: float = TOLERANCE) -> PointGroup:
    """Find all rotations, proper and improper, that carry a molecule into itself, atoms of equal element and
    mass for one another.

    Two atoms that span a plane with the centre are laid on every pair they could fall on; the permutation of
    all atoms that follows is a rotation of the molecule if the best superposition leaves no atom farther off
    than the tolerance. Small distortions of any kind do no harm, as nothing is told from equal moments of
    inertia. For improper rotations the molecule is inverted first.

    Args:
        atoms: The molecule, not periodic; not changed.
        tolerance: Å.

    Raises:
        InputError: The structure is periodic or empty, or the tolerance is not positive.
    """
    if atoms.pbc.any():
        raise InputError("the structure is periodic, but only molecules have a point group")
    if not (tolerance > 0.0 and math.isfinite(tolerance)):
        raise InputError(f"`tolerance` is {tolerance} but must be a positive length in Å")
    bare = atoms.copy()
    bare.set_constraint()
    rotations = rigid_motions(bare).rotations
    if rotations == 0:
        return PointGroup(name="Kh", symmetry_number=1, tolerance=tolerance)
    positions = bare.positions - bare.positions.mean(axis=0)
    kinds = np.unique(np.stack([bare.numbers, bare.get_masses()]), axis=1, return_inverse=True)[1].ravel()
    if rotations == 2:
        same = _is_turned_end_over_end(positions, kinds, tolerance)
        return PointGroup(name="D∞h" if same else "C∞v", symmetry_number=1 + same, tolerance=tolerance)
    proper = _operations(positions, positions, kinds, tolerance)
    while not _is_group(proper):
        tolerance *= 0.7
        proper = [operation for operation in proper if operation[1] <= tolerance]
    improper, within = _operations(-positions, positions, kinds, tolerance), tolerance
    while len(improper) not in (0, len(proper)):
        within *= 0.7
        improper = [operation for operation in improper if operation[1] <= within]
    return PointGroup(
        name=_name(proper, [-matrix for _, _, matrix in improper]),
        symmetry_number=len(proper),
        tolerance=tolerance,
    )


def _is_turned_end_over_end(
    positions: Float64[np.ndarray, "atoms 3"], kinds: Int64[np.ndarray, " atoms"], tolerance: float
) -> bool:
    along = positions @ np.linalg.svd(positions)[2][0]
    there, back = np.argsort(along), np.argsort(-along)
    return bool(
        (kinds[there] == kinds[back]).all() and (np.abs(along[there] + along[back]) <= tolerance).all()
    )


def _operations(
    moved: Float64[np.ndarray, "atoms 3"],
    positions: Float64[np.ndarray, "atoms 3"],
    kinds: Int64[np.ndarray, " atoms"],
    tolerance: float,
) -> list[Operation]:
    """Every proper rotation that lays points, in as many places, on positions of atoms."""
    radii = np.linalg.norm(positions, axis=1)
    alike = (kinds[:, None] == kinds) & (np.abs(radii[:, None] - radii) <= 2.0 * tolerance)
    first, second = _reference(positions, radii, alike.sum(axis=1))
    span = np.linalg.norm(positions[first] - positions[second])
    found: dict[tuple[int, ...], Operation] = {}
    for i in np.flatnonzero(alike[first]):
        for j in np.flatnonzero(alike[second]):
            if i == j or abs(np.linalg.norm(positions[i] - positions[j]) - span) > 4.0 * tolerance:
                continue
            turn = _rotation(moved[[first, second]], positions[[i, j]])
            permutation = _nearest(moved @ turn.T, positions, kinds)
            if permutation is None or permutation in found:
                continue
            target = positions[list(permutation)]
            best = _rotation(moved, target)
            off = float(np.linalg.norm(moved @ best.T - target, axis=1).max())
            if off <= tolerance:
                found[permutation] = permutation, off, best
    return list(found.values())


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


def _is_group(operations: list[Operation]) -> bool:
    members = {permutation for permutation, _, _ in operations}
    arrays = [np.array(permutation) for permutation in members]
    return all(tuple(a[b].tolist()) in members for a in arrays for b in arrays)


def _name(proper: list[Operation], improper: list[Float64[np.ndarray, "3 3"]]) -> str:
    """Schoenflies symbol, from the proper rotations and the matrices of the improper ones.

    A group that has improper operations has as many as proper ones, and among them at least one of: the
    inversion (trace −3), mirrors (trace 1), or rotary reflections of twice the order of its axis.
    """
    number = len(proper)
    orders = [_order(np.array(permutation)) for permutation, _, _ in proper]
    axis = max(orders)
    inversion = any(np.trace(matrix) < _NEAR - 3.0 for matrix in improper)
    cubic = {12: "T", 24: "O", 60: "I"}
    if number not in (axis, 2 * axis):
        ending = "" if not improper else "d" if number == 12 and not inversion else "h"
        return cubic.get(number, f"of order {number}") + ending
    family = "C" if number == axis else "D"
    if not improper:
        return f"{family}{axis}"
    if number == 1:
        return "Ci" if inversion else "Cs"
    if family == "D" and axis == 2:  # any of its three axes could be called the main one
        return "D2h" if inversion else "D2d"
    main = _kept(proper[orders.index(axis)][2], 1.0)
    mirrors = [_kept(matrix, -1.0) for matrix in improper if abs(np.trace(matrix) - 1.0) < _NEAR]
    across = any(abs(normal @ main) > math.sqrt(0.5) for normal in mirrors)
    if family == "D":
        return f"D{axis}{'h' if across else 'd'}"
    return f"C{axis}h" if across else f"C{axis}v" if mirrors else f"S{2 * axis}"


def _kept(matrix: Float64[np.ndarray, "3 3"], sign: float) -> Float64[np.ndarray, " 3"]:
    """The direction that an operation keeps (1) or turns round (-1)."""
    kept: Float64[np.ndarray, " 3"] = np.linalg.svd(matrix - sign * np.eye(3))[2][2]
    return kept


def _order(permutation: Int64[np.ndarray, " atoms"]) -> int:
    power, order = permutation, 1
    identity = np.arange(len(permutation))
    while (power != identity).any():
        power, order = permutation[power], order + 1
    return order
