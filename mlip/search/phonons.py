"""Phonons of crystals from the forces of displaced supercells: dispersion, density of states, heat
capacity."""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.units import KJ_PER_MOL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64, Int64

    from mlip.calculators.surface import Surface

DISPLACEMENT: Final = 0.01
"""Å; of the atoms in the supercells."""

SUPERCELL_HEIGHT: Final = 10.0
"""Å; opposite faces of a supercell that is chosen automatically are at least this far apart."""

MESH_LENGTH: Final = 100.0
"""Å; a mesh that is chosen automatically has this length over the lattice vector points along each axis."""

NOISE: Final = 3.0
"""cm⁻¹ (0.1 THz); an imaginary frequency smaller than this is that of an acoustic mode near Γ."""

ACOUSTIC: Final = 1e-3
"""THz; what is below is one of the three acoustic modes at Γ, which have no thermal properties."""

SYMMETRY_TOLERANCE: Final = 1e-3
"""Å; files of structures often have four digits."""

PATH_POINTS: Final = 300
"""Wave vectors along the whole band path, roughly."""

CM_PER_THZ: Final = 33.35640951981521
"""One terahertz, cm⁻¹."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BandSegment:
    """A straight piece of the path through the Brillouin zone.

    Attributes:
        labels: Names of its ends; `G` is Γ.
        qpoints: Fractional coordinates in the reciprocal lattice of the primitive cell.
        distances: Length of the path up to each point, 1/Å, without the factor 2π.
        frequencies: cm⁻¹, imaginary ones negative.
    """

    labels: tuple[str, str]
    qpoints: Float64[np.ndarray, "points 3"]
    distances: Float64[np.ndarray, " points"]
    frequencies: Float64[np.ndarray, "points branches"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Phonons:
    """Phonons of a crystal in the harmonic approximation; extensive quantities per primitive cell.

    Attributes:
        primitive: The primitive cell.
        supercell: Matrix of the supercell in terms of the cell that was given.
        supercell_atoms: Atoms in the supercell.
        displaced: Supercells with a displaced atom that were computed.
        bands: The dispersion, piece by piece.
        mesh: Points of the mesh on which the following were computed.
        dos_frequencies: cm⁻¹.
        dos: States per cm⁻¹ and primitive cell; its integral is three times the number of atoms.
        lowest_frequency: On the path and on the mesh, cm⁻¹; negative if imaginary.
        lowest_qpoint: Where that is.
        imaginary_fraction: Share of the modes on the mesh that are imaginary, by more than `NOISE`. They are
            left out of the thermal properties.
        zero_point_energy: eV.
        temperatures: K.
        free_energy: Vibrational Helmholtz energy with the zero-point energy, eV.
        entropy: eV/K.
        heat_capacity: At constant volume, eV/K.
        phonopy: The `phonopy.Phonopy` object, for all else it can do.
    """

    primitive: Atoms
    supercell: Int64[np.ndarray, "3 3"]
    supercell_atoms: int
    displaced: int
    bands: tuple[BandSegment, ...]
    mesh: tuple[int, int, int]
    dos_frequencies: Float64[np.ndarray, " bins"]
    dos: Float64[np.ndarray, " bins"]
    lowest_frequency: float
    lowest_qpoint: tuple[float, float, float]
    imaginary_fraction: float
    zero_point_energy: float
    temperatures: Float64[np.ndarray, " temperatures"]
    free_energy: Float64[np.ndarray, " temperatures"]
    entropy: Float64[np.ndarray, " temperatures"]
    heat_capacity: Float64[np.ndarray, " temperatures"]
    phonopy: Any

    @property
    def stable(self) -> bool:
        """No mode is imaginary by more than `NOISE`."""
        return self.lowest_frequency >= -NOISE

    def save(self, path: Path) -> None:
        """Write cells, displacements, forces and force constants as `phonopy.load` reads them (YAML)."""
        temporary = path.with_name(f".{path.name}.tmp")
        settings = {"force_sets": True, "displacements": True, "force_constants": True}
        try:
            self.phonopy.save(temporary, settings=settings)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def phonons(
    atoms: Atoms,
    calculator: BaseCalculator | Surface,
    *,
    supercell: Sequence[int] | None = None,
    mesh: Sequence[int] | None = None,
    temperatures: Sequence[float] = tuple(range(0, 1001, 10)),
    displacement: float = DISPLACEMENT,
) -> Phonons:
    """Force constants by finite displacements, and what follows from them.

    The supercells, displaced as symmetry demands, are evaluated together. Translational invariance is imposed
    on the force constants. The splitting of longitudinal and transverse optical modes at Γ in polar
    crystals, which needs charges, is not included.

    Args:
        atoms: The crystal, relaxed beforehand; constraints are not looked at.
        calculator: Any ASE calculator, or a `Surface`.
        supercell: Repetitions of the cell along its three vectors; `automatic_supercell` unless given.
        mesh: Points along the reciprocal vectors of the primitive cell; by `MESH_LENGTH` unless given.
        temperatures: K.
        displacement: Å.

    Raises:
        InputError: An argument is not as above, the structure is no crystal, or phonopy is not installed.

    Source: Togo and Tanaka, Scripta Mater. 108, 1 (2015), phonopy; path of Setyawan and Curtarolo, Comput.
    Mater. Sci. 49, 299 (2010), from ASE.
    """
    check_phonons(atoms, supercell=supercell, mesh=mesh, temperatures=temperatures, displacement=displacement)
    if supercell is None:
        supercell = automatic_supercell(atoms)
    phonopy = _phonopy_object(atoms, supercell)
    phonopy.generate_displacements(distance=displacement)
    found = as_surface(calculator).evaluate([_as_ase(cell) for cell in phonopy.supercells_with_displacements])
    phonopy.forces = [one.forces for one in found]
    phonopy.produce_force_constants(show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)
    bands = _band_structure(phonopy)
    phonopy.run_mesh(list(mesh) if mesh is not None else MESH_LENGTH, is_gamma_center=True)
    phonopy.run_total_dos()
    phonopy.run_thermal_properties(temperatures=list(temperatures), cutoff_frequency=ACOUSTIC)
    grid, thermal, dos = phonopy.mesh, phonopy.thermal_properties, phonopy.total_dos
    lowest, where = _lowest(bands, grid)
    reached, free_energy, entropy, heat_capacity = thermal.thermal_properties
    weights = np.asarray(grid.weights, dtype=np.float64)
    imaginary = (np.asarray(grid.frequencies) * CM_PER_THZ < -NOISE).mean(axis=1)
    return Phonons(
        primitive=_as_ase(phonopy.primitive),
        supercell=np.asarray(phonopy.supercell_matrix, dtype=np.int64),
        supercell_atoms=len(phonopy.supercell),
        displaced=len(phonopy.supercells_with_displacements),
        bands=bands,
        mesh=(int(grid.mesh_numbers[0]), int(grid.mesh_numbers[1]), int(grid.mesh_numbers[2])),
        dos_frequencies=np.asarray(dos.frequency_points) * CM_PER_THZ,
        dos=np.asarray(dos.dos) / CM_PER_THZ,
        lowest_frequency=lowest,
        lowest_qpoint=where,
        imaginary_fraction=float(imaginary @ weights / weights.sum()),
        zero_point_energy=float(thermal.zero_point_energy) * KJ_PER_MOL,
        temperatures=np.asarray(reached),
        free_energy=np.asarray(free_energy) * KJ_PER_MOL,
        entropy=np.asarray(entropy) * KJ_PER_MOL / 1000.0,
        heat_capacity=np.asarray(heat_capacity) * KJ_PER_MOL / 1000.0,
        phonopy=phonopy,
    )


def check_phonons(
    atoms: Atoms,
    *,
    supercell: Sequence[int] | None = None,
    mesh: Sequence[int] | None = None,
    temperatures: Sequence[float] = (),
    displacement: float = DISPLACEMENT,
) -> None:
    """See, without computing anything, whether `phonons` accepts its arguments.

    Raises:
        InputError: It does not, or phonopy is not installed.
    """
    check_crystal(atoms)
    for name, numbers in (("supercell", supercell), ("mesh", mesh)):
        if numbers is not None and (len(numbers) != 3 or min(numbers) < 1):
            raise InputError(f"`{name}` is {list(numbers)} but must be three whole numbers, 1 or more")
    if any(not (temperature >= 0.0 and math.isfinite(temperature)) for temperature in temperatures):
        raise InputError(f"`temperatures` holds {min(temperatures)} but must hold numbers from 0 K up")
    if not (displacement > 0.0 and math.isfinite(displacement)):
        raise InputError(f"`displacement` is {displacement} but must be a positive length in Å")
    _import_phonopy()


def check_crystal(atoms: Atoms) -> None:
    """See that a structure is periodic in all directions.

    Raises:
        InputError: It is not, or has no atoms.
    """
    if len(atoms) == 0:
        raise InputError("the structure has no atoms: at least one is needed")
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InputError(
            "the structure is not periodic in three directions, but a crystal is needed: "
            "give it a cell and pbc"
        )


def automatic_supercell(atoms: Atoms) -> tuple[int, int, int]:
    """The fewest repetitions with opposite faces at least `SUPERCELL_HEIGHT` apart."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    first, second, third = (math.ceil(SUPERCELL_HEIGHT / height - 1e-6) for height in heights)
    return first, second, third


def _import_phonopy() -> Any:
    try:
        return importlib.import_module("phonopy")
    except ModuleNotFoundError as error:
        raise InputError(
            f'phonons need the package "{error.name}", not installed: pip install "polyad[phonons]"'
        ) from None


def _phonopy_object(atoms: Atoms, supercell: Sequence[int]) -> Any:
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=list(atoms.symbols),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that "auto" was not the default once
        return _import_phonopy().Phonopy(
            cell, np.diag(supercell), primitive_matrix="auto", symprec=SYMMETRY_TOLERANCE, log_level=0
        )


def _as_ase(cell: Any) -> Atoms:
    from ase import Atoms

    return Atoms(
        cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True
    )


def _band_structure(phonopy: Any) -> tuple[BandSegment, ...]:
    from ase.cell import Cell
    from ase.dft.kpoints import parse_path_string

    cell = Cell(np.asarray(phonopy.primitive.cell))
    path = cell.bandpath(npoints=0, eps=SYMMETRY_TOLERANCE)
    points = path.special_points
    pairs = [pair for part in parse_path_string(path.path) for pair in pairwise(part)]
    reciprocal = cell.reciprocal().array
    lengths = [float(np.linalg.norm((points[b] - points[a]) @ reciprocal)) for a, b in pairs]
    segments, start = [], 0.0
    for (a, b), length in zip(pairs, lengths, strict=True):
        fractions = np.linspace(0.0, 1.0, max(2, round(PATH_POINTS * length / sum(lengths)) + 1))
        qpoints = points[a] + fractions[:, None] * (points[b] - points[a])
        phonopy.run_qpoints(qpoints)
        segments.append(
            BandSegment(
                labels=(a, b),
                qpoints=qpoints,
                distances=start + fractions * length,
                frequencies=np.asarray(phonopy.qpoints.frequencies) * CM_PER_THZ,
            )
        )
        start += length
    return tuple(segments)


def _lowest(bands: tuple[BandSegment, ...], grid: Any) -> tuple[float, tuple[float, float, float]]:
    frequencies = np.concatenate(
        [*(band.frequencies.min(axis=1) for band in bands), grid.frequencies.min(axis=1) * CM_PER_THZ]
    )
    qpoints = np.concatenate([*(band.qpoints for band in bands), grid.qpoints])
    at = int(frequencies.argmin())
    x, y, z = (float(value) for value in qpoints[at])
    return float(frequencies[at]), (x, y, z)
