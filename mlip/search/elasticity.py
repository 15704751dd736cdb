"""Elastic constants of crystals, ions relaxed."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.rigid_motions import rigid_motions
from mlip.search.phonons import SYMMETRY_TOLERANCE, check_crystal
from mlip.units import GPA

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator
    from jaxtyping import Float64

    from mlip.calculators.surface import Evaluation, Surface

STRAIN: Final = 0.005
"""Largest strain."""

STEPS: Final = 5
"""Strained cells along each of the six strains, from minus to plus the largest."""

NEWTON_STEPS: Final = 10
"""Steps in which the ions of the strained cells must come to rest."""

REST: Final = 1e-6
"""eV/Å; forces below this are none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ElasticConstants:
    """Elastic constants of a crystal, ions relaxed.

    Attributes:
        stiffness: C, GPa, in Voigt order xx yy zz yz xz xy with η₄ = 2 ε_yz: derivative of the stress.
        errors: Standard errors of the linear fit to each, GPa.
        eigenvalues: Of C, GPa, rising.
        bulk_modulus: Mean of Voigt's and Reuss's (Hill), GPa.
        shear_modulus: The same.
        bulk_bounds: Reuss's and Voigt's, GPa.
        shear_bounds: Reuss's and Voigt's, GPa.
        pressure: Pressure of the unstrained cell, GPa, −tr(σ)/3. Where it is not small, C is that of the
            crystal under this pressure.
        strain: Largest strain.
        hessian_method: How the Hessian with which ions are relaxed was made; the result does not depend on
            it. "none needed" for one atom.
    """

    stiffness: Float64[np.ndarray, "6 6"]
    errors: Float64[np.ndarray, "6 6"]
    eigenvalues: Float64[np.ndarray, " 6"]
    bulk_modulus: float
    shear_modulus: float
    bulk_bounds: tuple[float, float]
    shear_bounds: tuple[float, float]
    pressure: float
    strain: float
    hessian_method: str

    @property
    def stable(self) -> bool:
        """C is positive definite: any small strain costs energy (Born)."""
        return bool(self.eigenvalues[0] > 0.0)

    @property
    def youngs_modulus(self) -> float:
        """Of a polycrystal, 9KG/(3K + G), GPa."""
        return 9.0 * self.bulk_modulus * self.shear_modulus / (3.0 * self.bulk_modulus + self.shear_modulus)

    @property
    def poisson_ratio(self) -> float:
        """Of a polycrystal, (3K − 2G)/(6K + 2G)."""
        bulk, shear = self.bulk_modulus, self.shear_modulus
        return (3.0 * bulk - 2.0 * shear) / (6.0 * bulk + 2.0 * shear)


def elastic_constants(
    atoms: Atoms, calculator: BaseCalculator | Surface, *, strain: float = STRAIN
) -> ElasticConstants:
    """Fit stress against strain, ions at rest in every strained cell.

    All strained cells are evaluated together. Their ions are relaxed by Newton's method with the Hessian of
    the unstrained cell, which converges in two or three steps.

    Args:
        atoms: The crystal, cell and ions relaxed beforehand; constraints are not looked at.
        calculator: Any ASE calculator with stress, or a `Surface`.
        strain: Largest strain.

    Raises:
        InputError: The structure is no crystal, the strain is not a small positive number, ions have no
            stable place or do not come to rest.

    Source: `matscipy.elasticity.fit_elastic_constants`; Hill, Proc. Phys. Soc. A 65, 349 (1952).
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from matscipy.elasticity import fit_elastic_constants, generate_strained_configs

    check_crystal(atoms)
    if not (0.0 < strain < 0.1):
        raise InputError(f"`strain` is {strain} but must be small and positive, such as {STRAIN}")
    surface = as_surface(calculator)
    bare = atoms.copy()
    bare.set_constraint()
    bare.calc = None
    (rest,) = surface.evaluate([bare], stress=True, hessian=len(bare) > 1)
    strained = list(generate_strained_configs(bare, "triclinic", STEPS, 2.0 * strain / (STEPS - 1)))
    for cell, found in zip(strained, _at_rest(bare, strained, surface, rest), strict=True):
        cell.calc = SinglePointCalculator(cell, stress=found.stress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the correlation of constants that are zero
        fitted, errors = fit_elastic_constants(strained, "triclinic", STEPS, verbose=False)
    if rest.stress is None:
        raise InputError("the calculator gave no stress, which elastic constants need")
    stiffness = 0.5 * (fitted + fitted.T) / GPA
    bulk, shear = _bounds(stiffness)
    return ElasticConstants(
        stiffness=stiffness,
        errors=np.asarray(errors) / GPA,
        eigenvalues=np.linalg.eigvalsh(stiffness),
        bulk_modulus=sum(bulk) / 2.0,
        shear_modulus=sum(shear) / 2.0,
        bulk_bounds=bulk,
        shear_bounds=shear,
        pressure=-float(rest.stress[:3].mean()) / GPA,
        strain=strain,
        hessian_method=rest.hessian_method or "none needed",
    )


def in_crystal_axes(stiffness: Float64[np.ndarray, "6 6"], atoms: Atoms) -> Float64[np.ndarray, "6 6"]:
    """Elastic constants in the axes of the conventional cell, in which tables have them, whichever way the
    crystal is turned: of a cubic crystal C11, C12 and C44 in their places.

    Args:
        stiffness: In the axes of `atoms`, Voigt order.
        atoms: The crystal.

    Raises:
        InputError: spglib is not installed, or finds no space group.

    Source: `std_rotation_matrix` of spglib, Togo and Tanaka, arXiv:1808.01590.
    """
    from matscipy.elasticity import Voigt_6x6_to_full_3x3x3x3, full_3x3x3x3_to_Voigt_6x6

    try:
        import spglib
    except ModuleNotFoundError as error:
        raise InputError(
            f'crystal axes need the package "{error.name}", not installed: pip install "polyad[phonons]"'
        ) from None
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        dataset = spglib.get_symmetry_dataset(crystal, symprec=SYMMETRY_TOLERANCE)
    except Exception:  # some versions raise where others return nothing
        dataset = None
    if dataset is None:
        raise InputError("no space group was found: are atoms too close?")
    turn = dataset.std_rotation_matrix
    full = Voigt_6x6_to_full_3x3x3x3(stiffness)
    turned = np.einsum("ai,bj,ck,dl,ijkl->abcd", turn, turn, turn, turn, full, optimize=True)
    return np.asarray(full_3x3x3x3_to_Voigt_6x6(turned, check_symmetry=False))


def _at_rest(bare: Atoms, strained: list[Atoms], surface: Surface, rest: Evaluation) -> list[Evaluation]:
    """Relax the ions of the strained cells, in place, and return what holds there."""
    response = _response(bare, rest)
    found = surface.evaluate(strained, stress=True)
    start = max(_largest(one) for one in found)
    for _ in range(NEWTON_STEPS):
        if max(_largest(one) for one in found) <= max(REST, 1e-4 * start):
            return found
        for cell, one in zip(strained, found, strict=True):
            cell.positions += (response @ one.forces.ravel()).reshape(-1, 3)
        found = surface.evaluate(strained, stress=True)
    left = max(_largest(one) for one in found)
    if left > 0.01 * start:
        raise InputError(
            f"the ions of the strained cells did not come to rest (force {left:.1e} eV/Å, from {start:.1e}): "
            "relax the crystal first, or take a smaller strain"
        )
    return found  # as far as the noise of the forces lets it


def _response(bare: Atoms, rest: Evaluation) -> Float64[np.ndarray, "coordinates coordinates"]:
    """Displacements that forces cause: the inverse of the Hessian, translations left out."""
    size = 3 * len(bare)
    if rest.hessian is None:
        return np.zeros((size, size))
    basis = rigid_motions(bare, mass_weighted=False).complement
    curvatures, modes = np.linalg.eigh(basis @ rest.hessian @ basis.T)
    if curvatures[0] <= 1e-4:
        raise InputError(
            f"the ions of the crystal have no stable place: one displacement has a curvature of "
            f"{curvatures[0]:.1e} eV/Å²: relax from a structure that is displaced a little (`atoms.rattle()`)"
        )
    rows = modes.T @ basis
    return (rows.T / curvatures) @ rows


def _largest(found: Evaluation) -> float:
    return float(np.linalg.norm(found.forces, axis=1).max())


def _bounds(
    stiffness: Float64[np.ndarray, "6 6"],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Reuss's and Voigt's bulk and shear moduli; NaN for Reuss's where there is no compliance."""

    def sums(tensor: Float64[np.ndarray, "6 6"]) -> tuple[float, float, float]:
        diagonal, shear = np.diag(tensor)[:3].sum(), np.diag(tensor)[3:].sum()
        return float(diagonal), float(tensor[0, 1] + tensor[0, 2] + tensor[1, 2]), float(shear)

    diagonal, off, shear = sums(stiffness)
    voigt_bulk, voigt_shear = (diagonal + 2.0 * off) / 9.0, (diagonal - off + 3.0 * shear) / 15.0
    if abs(np.linalg.det(stiffness)) == 0.0:
        return (math.nan, voigt_bulk), (math.nan, voigt_shear)
    diagonal, off, shear = sums(np.linalg.inv(stiffness))
    reuss_bulk = 1.0 / (diagonal + 2.0 * off)
    reuss_shear = 15.0 / (4.0 * diagonal - 4.0 * off + 3.0 * shear)
    return (reuss_bulk, voigt_bulk), (reuss_shear, voigt_shear)
