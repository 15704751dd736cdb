"""Harmonic vibrations: rigid motions projected out, normal modes, frequencies.

Masses are ASE's, which average over isotopes; set `atoms.set_masses(...)` for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.calculators.electrons import said_of
from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.rigid_motions import checked_masses, rigid_motions
from mlip.units import INVERSE_CM, VIBRATIONAL_QUANTUM

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64

    from mlip.calculators.surface import Surface
    from mlip.hessian import HessianMethod

ZERO: Final = 1.0
"""cm⁻¹; an imaginary frequency smaller than this is not counted, it is zero but for rounding."""

AMPLITUDE: Final = 0.3
"""Å; how far the atom that moves most goes in an animation."""

FRAMES: Final = 20
"""Frames of one period in an animation."""


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
    roots = np.repeat(np.sqrt(checked_masses(atoms)), 3)
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
        novelty: How unlike those of the training its least known atom is, 1 at the boundary (`mlip.domain`);
            None where the calculator does not know.
    """

    atoms: Atoms
    energy: float
    fmax: float
    hessian: Float64[np.ndarray, "coordinates coordinates"]
    hessian_method: str
    modes: NormalModes
    novelty: float | None = None


def vibrations(
    atoms: Atoms, calculator: BaseCalculator | Surface, *, hessian_method: HessianMethod | None = None
) -> Vibrations:
    """Energy, forces, Hessian and normal modes of `atoms`, which are taken as they are.

    Args:
        atoms: A structure, relaxed beforehand (`mlip.search.relax`); not changed.
        calculator: Any ASE calculator, or a `Surface`.
        hessian_method: Of a potential: "autograd" unless given, which is exact; "direct", which costs next to
            nothing and is as good as it was learned; "finite-difference". Others have no choice.

    Raises:
        InputError: The structure cannot be evaluated; a Hessian that there is not; or as `normal_modes`.
    """
    free = rigid_motions(atoms).free
    (found,) = _with_hessian(as_surface(calculator), hessian_method).evaluate([atoms], hessian=True)
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
        novelty=None if found.novelty is None else float(found.novelty.max()),
    )


def _with_hessian(surface: Surface, method: HessianMethod | None) -> Surface:
    from mlip.calculators.batch import BatchCalculator

    if isinstance(surface, BatchCalculator):
        return BatchCalculator(surface.potential, hessian_method=method or "autograd")
    if method is not None:
        raise InputError(f'`hessian_method` is "{method}" but must be left out: only a model has a choice')
    return surface


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
        as text, and the charge and spin if the structure says them.
    """
    moving, said = [], said_of(atoms)
    for number, (mode, frequency) in enumerate(zip(modes.cartesian, modes.frequencies, strict=True), start=1):
        swing = amplitude * mode / np.linalg.norm(mode, axis=1).max()
        for frame in range(frames):
            copy = atoms.copy()
            copy.positions = copy.positions + np.sin(2.0 * np.pi * frame / frames) * swing
            copy.info = {"mode": number, "frequency": format_frequency(frequency), **said}
            moving.append(copy)
    return moving
