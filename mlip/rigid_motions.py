"""Motions of a whole structure that cost no energy: translations and rotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Bool, Float64

LINEAR: Final = 0.01
"""A molecule is linear when its atoms lie within about this fraction of its length from a line.

Purely geometric, so that heavy ends do not hide an atom beside the axis: carbon dioxide bent by one degree is
0.005 (still linear: a relaxation to 0.05 eV/Å may leave that), a hydroxyl at the end of a carbon chain of
25 Å is 0.03. Projecting six motions from a nearly linear molecule would swallow a bend.
"""

_TINY: Final = 1e-6
"""Å; atoms closer than this to a point or line are on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RigidMotions:
    """The motions of a structure that cost no energy, and their complement.

    Attributes:
        removed: Orthonormal rows that span the rigid motions; zero in the fixed coordinates.
        complement: Orthonormal rows that span everything else that may move; zero in the fixed coordinates.
        translations: How many of the rows of `removed` come from translations.
        rotations: How many come from rotations.
        free: Which coordinates may move.
    """

    removed: Float64[np.ndarray, "removed coordinates"]
    complement: Float64[np.ndarray, "modes coordinates"]
    translations: int
    rotations: int
    free: Bool[np.ndarray, " coordinates"]


def rigid_motions(atoms: Atoms, *, mass_weighted: bool = True) -> RigidMotions:
    """Translations and rotations of `atoms`, as the Eckart–Sayvetz conditions have them.

    A molecule has three of each, a linear one two rotations, an atom none. A structure that is periodic in
    two or three directions has only translations, one that is periodic in one direction also the rotation
    about it. With fixed coordinates (`FixAtoms`, `FixCartesian`) those motions remain that leave them where
    they are: none with three atoms fixed, the rotations about it with a single one.

    The rotations are taken about the centre of the structure, wherever that is, and those too small to
    matter are told by a relative tolerance, `LINEAR`.

    Args:
        atoms: Positions (Å), masses (amu), cell, periodicity and constraints; not changed.
        mass_weighted: Rows in coordinates √m·x, which is what vibrations need; else in plain Cartesian ones,
            which is what a search for a minimum or saddle needs.

    Raises:
        InputError: No atoms, a mass that is not positive, or another constraint than the two above.

    Source: Miller, Handy, Adams, J. Chem. Phys. 72, 99 (1980).
    """
    weights = np.repeat(np.sqrt(checked_masses(atoms)), 3) if mass_weighted else np.ones(3 * len(atoms))
    free = _free_coordinates(atoms)
    fixed = np.logical_not(free)
    translations = np.tile(np.eye(3), len(atoms)) / len(atoms) ** 0.5
    motions = np.concatenate([translations, _rotations(atoms, about=fixed.reshape(-1, 3).any(axis=1))])
    motions = _independent(_that_leave(fixed, motions))
    num_translations = len(_that_leave(fixed, translations))
    count, size = len(motions), int(free.sum())
    basis = np.zeros((size, free.size))
    basis[:, free] = np.linalg.qr((motions * weights)[:, free].T, mode="complete")[0].T
    return RigidMotions(
        removed=basis[:count],
        complement=basis[count:],
        translations=num_translations,
        rotations=count - num_translations,
        free=free,
    )


def _rotations(
    atoms: Atoms, *, about: Bool[np.ndarray, " atoms"]
) -> Float64[np.ndarray, "rotations coordinates"]:
    """Infinitesimal rotations about the centre of the atoms `about`, or of all if there are none; of norm 1
    or less, as much less as the atoms lie close to the axis."""
    periodic = np.flatnonzero(atoms.pbc)
    if len(periodic) > 1:
        return np.zeros((0, 3 * len(atoms)))
    axes = np.eye(3)
    if len(periodic) == 1:
        axis = atoms.cell.array[periodic]
        axes = axis / max(float(np.linalg.norm(axis)), _TINY)
    arms = atoms.positions - atoms.positions[about if about.any() else slice(None)].mean(axis=0)
    scale = max(float(np.linalg.norm(arms)), _TINY / LINEAR)
    return np.cross(axes[:, None, :], arms[None]).reshape(len(axes), -1) / scale


def _that_leave(
    fixed: Bool[np.ndarray, " coordinates"], motions: Float64[np.ndarray, "motions coordinates"]
) -> Float64[np.ndarray, "kept coordinates"]:
    """Combinations of the motions that do not move the fixed coordinates."""
    if not fixed.any():
        return motions
    left, moved, _ = np.linalg.svd(motions[:, fixed])
    moved = np.concatenate([moved, np.zeros(len(motions) - len(moved))])
    return left.T[moved < 1e-6] @ motions


def _independent(
    motions: Float64[np.ndarray, "motions coordinates"],
) -> Float64[np.ndarray, "kept coordinates"]:
    """An orthonormal basis of the motions, without those that are next to nothing."""
    _, size, rows = np.linalg.svd(motions, full_matrices=False)
    return rows[size > LINEAR]


def checked_masses(atoms: Atoms) -> Float64[np.ndarray, " atoms"]:
    """ASE's masses, amu.

    Raises:
        InputError: One is not positive.
    """
    masses: Float64[np.ndarray, " atoms"] = atoms.get_masses()
    if not (np.isfinite(masses) & (masses > 0.0)).all():
        at = int(np.flatnonzero(~(np.isfinite(masses) & (masses > 0.0)))[0])
        raise InputError(
            f"the mass of atom {at} ({atoms.symbols[at]}) is {masses[at]} amu but must be positive: "
            "set it with `atoms.set_masses`"
        )
    return masses


def _free_coordinates(atoms: Atoms) -> Bool[np.ndarray, " coordinates"]:
    from ase.constraints import FixAtoms, FixCartesian

    if len(atoms) == 0:
        raise InputError("the structure has no atoms: at least one is needed")
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
        elif isinstance(constraint, FixCartesian):
            free[constraint.index] &= ~np.asarray(constraint.mask, dtype=bool)
        else:
            raise InputError(
                f"the structure has a {type(constraint).__name__} constraint, but vibrations know only "
                "FixAtoms and FixCartesian: remove it (`atoms.set_constraint()`)"
            )
    return free.ravel()
