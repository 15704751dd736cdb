"""Thermochemistry from harmonic vibrations: molecules as an ideal gas, bound structures as oscillators."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.electrons import multiplicity_of, num_electrons
from mlip.errors import InputError
from mlip.search.symmetry import PointGroup, point_group
from mlip.units import BOLTZMANN, INVERSE_CM

if TYPE_CHECKING:
    from ase import Atoms
    from ase.thermochemistry import IdealGasThermo
    from jaxtyping import Float64

    from mlip.search.vibrations import Vibrations

QUASI_RRHO_FREQUENCY: Final = 100.0
"""cm⁻¹; where a mode counts half as an oscillator, half as a rotor."""

QUASI_RRHO_INERTIA: Final = 1e-44
"""kg m²; the mean moment of inertia that bounds those of the rotors."""


@dataclass(frozen=True, kw_only=True)
class IdealGas:
    """A molecule as an ideal gas: rigid rotor and harmonic oscillators (RRHO), and with quasi-RRHO entropy.

    Attributes:
        temperature: K.
        pressure: bar.
        geometry: "monatomic", "linear" or "nonlinear".
        point_group: Found in the geometry.
        symmetry_number: Its own, unless another was given; divides the rotational partition function.
        multiplicity: Spin multiplicity 2S + 1.
        left_out: Imaginary modes, which are left out: one at a transition state, none at a minimum.
        energy: Potential energy, eV.
        zero_point_energy: eV.
        enthalpy: Potential energy, zero-point energy, thermal energy and kT, eV.
        entropy: RRHO, eV/K.
        gibbs_energy: RRHO, eV.
        translational_entropy: Part of the entropy, eV/K.
        rotational_entropy: eV/K.
        electronic_entropy: k ln(2S + 1), eV/K.
        vibrational_entropy: Of harmonic oscillators, eV/K.
        quasi_rrho_vibrational_entropy: The same as Grimme has it, eV/K.
        quasi_rrho_entropy: eV/K.
        quasi_rrho_gibbs_energy: eV.
    """

    temperature: float
    pressure: float
    geometry: str
    point_group: PointGroup
    symmetry_number: int
    multiplicity: int
    left_out: int
    energy: float
    zero_point_energy: float
    enthalpy: float
    entropy: float
    gibbs_energy: float
    translational_entropy: float
    rotational_entropy: float
    electronic_entropy: float
    vibrational_entropy: float
    quasi_rrho_vibrational_entropy: float
    quasi_rrho_entropy: float
    quasi_rrho_gibbs_energy: float


@dataclass(frozen=True, kw_only=True)
class Oscillators:
    """A structure that neither moves nor turns as a whole: its vibrations alone.

    Attributes:
        temperature: K.
        left_out: Imaginary modes, which are left out.
        energy: Potential energy, eV.
        zero_point_energy: eV.
        internal_energy: With the potential energy, eV.
        entropy: eV/K.
        free_energy: Helmholtz energy, eV.
    """

    temperature: float
    left_out: int
    energy: float
    zero_point_energy: float
    internal_energy: float
    entropy: float
    free_energy: float


def check_thermochemistry(
    atoms: Atoms,
    *,
    temperature: float = 298.15,
    pressure: float = 1.0,
    symmetry: int | None = None,
    multiplicity: int | None = None,
) -> None:
    """See, without computing anything, whether `ideal_gas` accepts its arguments.

    Raises:
        InputError: It does not.
    """
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise InputError(f"`temperature` is {temperature} but must be positive, K")
    if not (pressure > 0.0 and math.isfinite(pressure)):
        raise InputError(f"`pressure` is {pressure} but must be positive, bar")
    if symmetry is not None and symmetry < 1:
        raise InputError(f"`symmetry` is {symmetry} but must be a symmetry number, 1 or more")
    if multiplicity is not None:
        electrons = num_electrons(atoms)
        if multiplicity < 1 or (electrons + multiplicity) % 2 == 0:
            raise InputError(
                f"`multiplicity` is {multiplicity}, which {atoms.get_chemical_formula()} with {electrons} "
                f"electrons cannot have: give {'1, 3, 5' if electrons % 2 == 0 else '2, 4, 6'}, …"
            )


def ideal_gas(
    vibrations: Vibrations,
    *,
    temperature: float = 298.15,
    pressure: float = 1.0,
    symmetry: int | None = None,
    multiplicity: int | None = None,
) -> IdealGas:
    """Enthalpy, entropy and Gibbs energy of a molecule in the gas phase.

    Imaginary modes are left out and counted, as at a transition state the one along the path. Quasi-RRHO
    replaces the entropy of an oscillator, which has no bound for a vanishing frequency, by that of a rotor,
    with the weight 1 − 1/(1 + (100 cm⁻¹/ν)⁴). This is Grimme's; ASE's `MSRRHOThermo` has another frequency
    and takes the molecule's own moments of inertia.

    Args:
        vibrations: Of a molecule: not periodic, no atom fixed.
        temperature: K.
        pressure: bar.
        symmetry: Symmetry number; that of the point group unless given.
        multiplicity: Spin multiplicity 2S + 1; unless given what the structure says (`atoms.info`, as
            "spin"), else 1 for an even number of electrons, 2 for an odd one.

    Raises:
        InputError: An argument is not as above.

    Source: `ase.thermochemistry.IdealGasThermo`; Grimme, Chem. Eur. J. 18, 9955 (2012).
    """
    atoms, modes = vibrations.atoms, vibrations.modes
    if multiplicity is None:
        multiplicity = multiplicity_of(atoms)
    check_thermochemistry(
        atoms, temperature=temperature, pressure=pressure, symmetry=symmetry, multiplicity=multiplicity
    )
    if atoms.pbc.any() or atoms.constraints:
        raise InputError(
            "the structure is periodic or has fixed atoms, but only a free molecule is an ideal gas"
        )
    group = point_group(atoms)
    number = group.symmetry_number if symmetry is None else symmetry
    thermo, geometry = _ase_ideal_gas(vibrations, number, multiplicity)
    enthalpy = float(thermo.get_enthalpy(temperature, verbose=False))
    entropy = float(thermo.get_entropy(temperature, pressure=pressure * 1e5, verbose=False))
    frequencies = modes.frequencies[modes.frequencies > 0.0]
    harmonic = float(_oscillator_entropy(frequencies, temperature).sum())
    quasi = float(quasi_rrho_entropy(frequencies, temperature).sum())
    electronic = BOLTZMANN * math.log(multiplicity)
    translational = _translational_entropy(atoms, temperature, pressure)
    return IdealGas(
        temperature=temperature,
        pressure=pressure,
        geometry=geometry,
        point_group=group,
        symmetry_number=number,
        multiplicity=multiplicity,
        left_out=len(modes.frequencies) - len(frequencies),
        energy=vibrations.energy,
        zero_point_energy=modes.zero_point_energy,
        enthalpy=enthalpy,
        entropy=entropy,
        gibbs_energy=enthalpy - temperature * entropy,
        translational_entropy=translational,
        rotational_entropy=entropy - translational - electronic - harmonic,
        electronic_entropy=electronic,
        vibrational_entropy=harmonic,
        quasi_rrho_vibrational_entropy=quasi,
        quasi_rrho_entropy=entropy - harmonic + quasi,
        quasi_rrho_gibbs_energy=enthalpy - temperature * (entropy - harmonic + quasi),
    )


def oscillators(vibrations: Vibrations, *, temperature: float = 298.15) -> Oscillators:
    """Free energy of a structure whose only motions are its vibrations, such as an adsorbate on fixed atoms.

    Imaginary modes are left out and counted; the work against a pressure is neglected.

    Args:
        vibrations: Of any structure.
        temperature: K.

    Raises:
        InputError: The temperature is not positive.

    Source: `ase.thermochemistry.HarmonicThermo`.
    """
    from ase.thermochemistry import HarmonicThermo

    check_thermochemistry(vibrations.atoms, temperature=temperature)
    modes = vibrations.modes
    real = modes.energies[modes.frequencies > 0.0]
    thermo = HarmonicThermo(list(real), potentialenergy=vibrations.energy)
    internal = float(thermo.get_internal_energy(temperature, verbose=False))
    entropy = float(thermo.get_entropy(temperature, verbose=False))
    return Oscillators(
        temperature=temperature,
        left_out=len(modes.frequencies) - len(real),
        energy=vibrations.energy,
        zero_point_energy=modes.zero_point_energy,
        internal_energy=internal,
        entropy=entropy,
        free_energy=internal - temperature * entropy,
    )


def quasi_rrho_entropy(
    frequencies: Float64[np.ndarray, " modes"], temperature: float
) -> Float64[np.ndarray, " modes"]:
    """Entropy of each mode, eV/K, between that of an oscillator and that of a rotor of the same frequency.

    Args:
        frequencies: cm⁻¹, positive.
        temperature: K.

    Source: Grimme, Chem. Eur. J. 18, 9955 (2012), equations 3 to 8.
    """
    from ase import units

    inertia = units._hplanck / (8.0 * math.pi**2 * frequencies * 100.0 * units._c)
    bounded = inertia * QUASI_RRHO_INERTIA / (inertia + QUASI_RRHO_INERTIA)
    turns = 8.0 * math.pi**3 * bounded * units._k * temperature / units._hplanck**2
    rotor = BOLTZMANN * (0.5 + 0.5 * np.log(turns))
    weight = 1.0 / (1.0 + (QUASI_RRHO_FREQUENCY / frequencies) ** 4)
    return weight * _oscillator_entropy(frequencies, temperature) + (1.0 - weight) * rotor


def _oscillator_entropy(
    frequencies: Float64[np.ndarray, " modes"], temperature: float
) -> Float64[np.ndarray, " modes"]:
    x = frequencies * INVERSE_CM / (BOLTZMANN * temperature)
    return BOLTZMANN * (x * np.exp(-x) / -np.expm1(-x) - np.log(-np.expm1(-x)))


def _translational_entropy(atoms: Atoms, temperature: float, pressure: float) -> float:
    """Of an ideal gas at `pressure` bar, eV/K (Sackur and Tetrode)."""
    from ase import units

    thermal = units._k * temperature
    momentum = 2.0 * math.pi * float(atoms.get_masses().sum()) * units._amu * thermal
    states = (momentum**0.5 / units._hplanck) ** 3 * thermal / (pressure * 1e5)
    return BOLTZMANN * (math.log(states) + 2.5)


def _ase_ideal_gas(vibrations: Vibrations, symmetry: int, multiplicity: int) -> tuple[IdealGasThermo, str]:
    from ase.thermochemistry import IdealGasThermo

    modes = vibrations.modes
    geometry: Any = {0: "monatomic", 2: "linear", 3: "nonlinear"}[modes.rotations]
    # ASE must see imaginary modes in order to leave them out: their number is checked before that
    energies = [complex(energy) if energy > 0.0 else complex(0.0, -energy) for energy in modes.energies]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thermo = IdealGasThermo(
            energies,
            geometry,
            potentialenergy=vibrations.energy,
            atoms=vibrations.atoms,
            symmetrynumber=symmetry,
            spin=(multiplicity - 1) / 2,
            ignore_imag_modes=True,
        )
    return thermo, geometry
