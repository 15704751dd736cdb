"""Harmonic vibrations: rigid motions projected out, normal modes, frequencies.

Masses are ASE's, which average over isotopes; set `atoms.set_masses(...)` for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.units import INVERSE_CM, VIBRATIONAL_QUANTUM

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Bool, Float64

    from mlip.calculators.surface import Surface

LINEAR: Final = 0.01
"""A molecule is linear when its atoms lie within about this fraction of its length from a line.

Purely geometric, so that heavy ends do not hide an atom beside the axis: carbon dioxide bent by one degree is
0.005 (still linear: a relaxation to 0.05 eV/Å may leave that), a hydroxyl at the end of a carbon chain of
25 Å is 0.03. Projecting six motions from a nearly linear molecule would swallow a bend.
"""

ZERO: Final = 1.0
"""cm⁻¹; an imaginary frequency smaller than this is not counted, it is zero but for rounding."""

AMPLITUDE: Final = 0.3
"""Å; how far the atom that moves most goes in an animation."""

FRAMES: Final = 20
"""Frames of one period in an animation."""

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
    weights = np.repeat(np.sqrt(_masses(atoms)), 3) if mass_weighted else np.ones(3 * len(atoms))
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


def _masses(atoms: Atoms) -> Float64[np.ndarray, " atoms"]:
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


@dataclass(frozen=True, kw_only=True, eq=False)
class NormalModes:
    """Vibrations in the harmonic approximation, rigid motions left out; by rising frequency.

    Attributes:
        frequencies: cm⁻¹; an imaginary frequency is stored as a negative number, the smallest first.
        mass_weighted: Modes in coordinates √m·x, orthonormal.
        cartesian: The same as displacements of atoms, each mode of norm 1.
        reduced_masses: Of each mode, amu, for displacements as in `cartesian`.
        translations: Translations left out.
        rotations: Rotations left out.
    """

    frequencies: Float64[np.ndarray, " modes"]
    mass_weighted: Float64[np.ndarray, "modes atoms 3"]
    cartesian: Float64[np.ndarray, "modes atoms 3"]
    reduced_masses: Float64[np.ndarray, " modes"]
    translations: int
    rotations: int

    @property
    def num_imaginary(self) -> int:
        """Modes with an imaginary frequency of more than `ZERO`."""
        return int((self.frequencies < -ZERO).sum())

    @property
    def energies(self) -> Float64[np.ndarray, " modes"]:
        """hν of each mode, eV; negative where the frequency is imaginary."""
        return self.frequencies * INVERSE_CM

    @property
    def zero_point_energy(self) -> float:
        """½ Σ hν over the real modes, eV."""
        return 0.5 * float(self.energies.clip(min=0.0).sum())


def normal_modes(atoms: Atoms, hessian: Float64[np.ndarray, "coordinates coordinates"]) -> NormalModes:
    """Frequencies and modes from the second derivatives of the energy.

    The mass-weighted Hessian is diagonalised in the complement of the rigid motions (see `rigid_motions`), so
    that frequencies are never mistaken for translations or rotations, and the other way round.

    Args:
        atoms: The structure; fixed atoms do not move.
        hessian: eV/Å².

    Raises:
        InputError: The Hessian has another shape, is not finite or not symmetric; or as `rigid_motions`.

    Source: Wilson, Decius, Cross, Molecular Vibrations (1955), chapter 2.
    """
    size = 3 * len(atoms)
    hessian = np.asarray(hessian, dtype=np.float64)
    if hessian.shape != (size, size):
        raise InputError(
            f"`hessian` has shape {hessian.shape} but must be ({size}, {size}) for {len(atoms)} atoms"
        )
    if not np.isfinite(hessian).all():
        raise InputError("`hessian` holds numbers that are not finite")
    if np.abs(hessian - hessian.T).max(initial=0.0) > 1e-3 * max(1.0, np.abs(hessian).max(initial=0.0)):
        raise InputError("`hessian` is not symmetric: give (H + H.T) / 2")
    rigid = rigid_motions(atoms)
    roots = np.repeat(np.sqrt(_masses(atoms)), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(roots, roots)
    eigenvalues, vectors = np.linalg.eigh(rigid.complement @ weighted @ rigid.complement.T)
    modes = vectors.T @ rigid.complement
    moved = modes / roots
    norms = np.linalg.norm(moved, axis=1)
    quanta = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * VIBRATIONAL_QUANTUM
    return NormalModes(
        frequencies=quanta / INVERSE_CM,
        mass_weighted=modes.reshape(-1, len(atoms), 3),
        cartesian=(moved / norms[:, None]).reshape(-1, len(atoms), 3),
        reduced_masses=1.0 / norms**2,
        translations=rigid.translations,
        rotations=rigid.rotations,
    )


def format_frequency(frequency: float, *, digits: int = 1) -> str:
    """`1594.7`, and `123.4i` for -123.4; cm⁻¹."""
    return f"{abs(frequency):.{digits}f}" + ("i" if frequency < 0.0 else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Vibrations:
    """The vibrations of a structure on a potential energy surface.

    Attributes:
        atoms: The structure.
        energy: eV.
        fmax: Largest force on an atom that may move, eV/Å. Frequencies mean what they say only where this is
            next to nothing.
        hessian: eV/Å².
        hessian_method: "direct", "autograd" or "finite-difference".
        modes: Frequencies and modes.
    """

    atoms: Atoms
    energy: float
    fmax: float
    hessian: Float64[np.ndarray, "coordinates coordinates"]
    hessian_method: str
    modes: NormalModes


def vibrations(atoms: Atoms, calculator: BaseCalculator | Surface) -> Vibrations:
    """Energy, forces, Hessian and normal modes of `atoms`, which are taken as they are.

    Args:
        atoms: A structure, relaxed beforehand (`mlip.search.relax`); not changed.
        calculator: Any ASE calculator, or a `Surface`.

    Raises:
        InputError: The structure cannot be evaluated; or as `normal_modes`.
    """
    free = rigid_motions(atoms).free
    (found,) = as_surface(calculator).evaluate([atoms], hessian=True)
    if found.hessian is None or found.hessian_method is None:
        raise InputError("the calculator gave no Hessian: a Surface must give one when it is asked to")
    forces = (found.forces.ravel() * free).reshape(-1, 3)
    return Vibrations(
        atoms=atoms.copy(),
        energy=found.energy,
        fmax=float(np.linalg.norm(forces, axis=1).max()),
        hessian=found.hessian,
        hessian_method=found.hessian_method,
        modes=normal_modes(atoms, found.hessian),
    )


def animate(
    atoms: Atoms, modes: NormalModes, *, amplitude: float = AMPLITUDE, frames: int = FRAMES
) -> list[Atoms]:
    """One period of every mode after the other, to be looked at in a viewer.

    Args:
        atoms: The structure at rest; not changed.
        modes: Its modes.
        amplitude: Of the atom that moves most, Å.
        frames: Frames of a period; the first is the structure at rest.

    Returns:
        `frames` structures for each mode; `info` holds its number from 1 (`mode`) and its `frequency`, cm⁻¹,
        as text.
    """
    moving = []
    for number, (mode, frequency) in enumerate(zip(modes.cartesian, modes.frequencies, strict=True), start=1):
        swing = amplitude * mode / np.linalg.norm(mode, axis=1).max()
        for frame in range(frames):
            copy = atoms.copy()
            copy.positions = copy.positions + np.sin(2.0 * np.pi * frame / frames) * swing
            copy.info = {"mode": number, "frequency": format_frequency(frequency)}
            moving.append(copy)
    return moving
