"""Thermochemistry: values of the literature from measured frequencies, limits, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.thermochemistry import HarmonicThermo

from mlip.errors import InputError
from mlip.search.thermochemistry import ideal_gas, oscillators, quasi_rrho_entropy
from mlip.search.vibrations import Vibrations, normal_modes
from mlip.units import BOLTZMANN, INVERSE_CM, KJ_PER_MOL, VIBRATIONAL_QUANTUM

J_PER_MOL = KJ_PER_MOL / 1000.0


def with_frequencies(atoms: Atoms, frequencies: list[float], *, energy: float = 0.0) -> Vibrations:
    """Vibrations of any frequencies: a Hessian made of them in the space that is no rigid motion."""
    from mlip.rigid_motions import rigid_motions

    complement = rigid_motions(atoms).complement
    quanta = np.array(frequencies) * INVERSE_CM / VIBRATIONAL_QUANTUM
    roots = np.repeat(np.sqrt(atoms.get_masses()), 3)
    hessian = complement.T @ np.diag(np.sign(quanta) * quanta**2) @ complement * np.outer(roots, roots)
    modes = normal_modes(atoms, hessian)
    np.testing.assert_allclose(modes.frequencies, sorted(frequencies), rtol=1e-6)
    return Vibrations(
        atoms=atoms, energy=energy, fmax=0.0, hessian=hessian, hessian_method="direct", modes=modes
    )


def geometry(name: str) -> Atoms:
    """Measured structures: r(OH) 0.9572 Å, 104.52°; r(CO) 1.1600 Å; r(NH) 1.0116 Å, 106.7°."""
    if name == "H2O":
        half = math.radians(104.52) / 2
        x, z = 0.9572 * math.sin(half), 0.9572 * math.cos(half)
        return Atoms("OH2", positions=[[0, 0, 0], [x, 0, z], [-x, 0, z]])
    if name == "CO2":
        return Atoms("CO2", positions=[[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]])
    side = 2 * 1.0116 * math.sin(math.radians(106.7) / 2) / 3**0.5
    height = (1.0116**2 - side**2) ** 0.5
    turns = 2 * math.pi * np.arange(3) / 3
    ring = np.stack([side * np.cos(turns), side * np.sin(turns), np.full(3, height)], axis=1)
    return Atoms("NH3", positions=np.concatenate([np.zeros((1, 3)), ring]))


@pytest.mark.parametrize(
    ("name", "frequencies", "entropy", "heat", "number"),
    [
        ("H2O", [1594.7, 3657.1, 3755.9], 188.834, 9.904, 2),
        ("CO2", [667.4, 667.4, 1333.0, 2349.1], 213.785, 9.364, 2),
        ("NH3", [950.0, 1627.0, 1627.0, 3337.0, 3444.0, 3444.0], 192.774, 10.043, 3),
    ],
)
def test_literature(name: str, frequencies: list[float], entropy: float, heat: float, number: int) -> None:
    """S(298.15 K, 1 bar), J/mol/K, and H(298.15 K) − H(0), kJ/mol, of the NIST-JANAF tables (Chase 1998) from
    measured fundamentals (Shimanouchi 1972), within what anharmonicity and quantised rotation make up."""
    gas = ideal_gas(with_frequencies(geometry(name), frequencies))
    assert gas.symmetry_number == number
    assert gas.entropy / J_PER_MOL == pytest.approx(entropy, abs=0.25)
    assert (gas.enthalpy - gas.zero_point_energy) / KJ_PER_MOL == pytest.approx(heat, abs=0.03)
    assert gas.zero_point_energy == pytest.approx(0.5 * sum(frequencies) * INVERSE_CM)
    assert gas.gibbs_energy == pytest.approx(gas.enthalpy - 298.15 * gas.entropy)
    parts = gas.translational_entropy + gas.rotational_entropy + gas.vibrational_entropy
    assert parts + gas.electronic_entropy == pytest.approx(gas.entropy)


@pytest.mark.parametrize(("pressure", "entropy"), [(1.0, 154.8457), (1.01325, 154.7362)])
def test_argon(pressure: float, entropy: float) -> None:
    gas = ideal_gas(with_frequencies(Atoms("Ar", positions=[[1, 2, 3]]), []), pressure=pressure)
    assert gas.geometry == "monatomic"
    assert gas.entropy / J_PER_MOL == pytest.approx(entropy, abs=2e-3)
    assert gas.rotational_entropy == pytest.approx(0.0, abs=1e-12)
    assert gas.quasi_rrho_entropy == gas.entropy
    assert gas.enthalpy == pytest.approx(2.5 * BOLTZMANN * 298.15)


def test_argon_by_sackur_and_tetrode() -> None:
    """To all digits with the mass that the page of the value used."""
    atom = Atoms("Ar", masses=[39.948])
    gas = ideal_gas(with_frequencies(atom, []))
    assert gas.entropy / J_PER_MOL == pytest.approx(154.8457, abs=5e-4)
    assert gas.translational_entropy == pytest.approx(gas.entropy, rel=1e-12)


def test_quasi_rrho_values() -> None:
    """ω₀ = 100 cm⁻¹, B = 1e-44 kg m², 298.15 K."""
    found = quasi_rrho_entropy(np.array([25.0, 50.0, 100.0, 200.0]), 298.15) / J_PER_MOL
    np.testing.assert_allclose(found, [17.7356, 15.1381, 13.1985, 8.9330], atol=2e-4)


def test_quasi_rrho_changes_soft_modes_alone() -> None:
    stiff = ideal_gas(with_frequencies(geometry("H2O"), [1594.7, 3657.1, 3755.9]))
    assert stiff.quasi_rrho_gibbs_energy == pytest.approx(stiff.gibbs_energy, abs=1e-4)
    soft = ideal_gas(with_frequencies(geometry("H2O"), [10.0, 3657.1, 3755.9]))
    assert soft.quasi_rrho_gibbs_energy > soft.gibbs_energy + 0.02
    change = soft.quasi_rrho_vibrational_entropy - soft.vibrational_entropy
    assert soft.quasi_rrho_entropy - soft.entropy == pytest.approx(change)


def test_an_imaginary_mode_is_left_out_and_counted() -> None:
    saddle = ideal_gas(with_frequencies(geometry("H2O"), [-1200.0, 1594.7, 3657.1]))
    assert saddle.left_out == 1
    assert saddle.zero_point_energy == pytest.approx(0.5 * (1594.7 + 3657.1) * INVERSE_CM)
    twin = ideal_gas(with_frequencies(geometry("H2O"), [1594.7, 3657.1, 90000.0]))
    assert saddle.entropy == pytest.approx(twin.entropy, abs=1e-12)


def test_symmetry_and_spin_are_divided_and_multiplied_in() -> None:
    water = with_frequencies(geometry("H2O"), [1594.7, 3657.1, 3755.9], energy=-5.0)
    plain, lone = ideal_gas(water), ideal_gas(water, symmetry=1)
    assert lone.entropy - plain.entropy == pytest.approx(BOLTZMANN * math.log(2))
    assert (plain.symmetry_number, lone.symmetry_number) == (2, 1)
    assert plain.point_group.name == lone.point_group.name == "C2v"
    triplet = ideal_gas(water, multiplicity=3)
    assert triplet.entropy - plain.entropy == pytest.approx(BOLTZMANN * math.log(3))
    assert triplet.electronic_entropy == pytest.approx(BOLTZMANN * math.log(3))
    assert (plain.energy, plain.multiplicity) == (-5.0, 1)
    methyl = with_frequencies(molecule("CH3"), [600.0, 1380.0, 1380.0, 3000.0, 3150.0, 3150.0])
    assert ideal_gas(methyl).multiplicity == 2


def test_electrons_are_those_that_the_structure_says() -> None:
    oxygen = molecule("O2")  # of two unpaired electrons
    assert ideal_gas(with_frequencies(oxygen, [1580.0])).multiplicity == 3
    cation = molecule("H2O")
    cation.info["charge"] = 1
    ionised = with_frequencies(cation, [1594.7, 3657.1, 3755.9])
    assert ideal_gas(ionised).multiplicity == 2
    with pytest.raises(InputError, match="H2O with 9 electrons cannot have: give 2, 4, 6"):
        ideal_gas(ionised, multiplicity=1)
    cation.info["spin"] = 4
    assert ideal_gas(ionised).electronic_entropy == pytest.approx(BOLTZMANN * math.log(4))


def test_oscillators() -> None:
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([0, 1, 2]))
    found = oscillators(with_frequencies(slab, [-50.0, 100.0, 200.0], energy=-3.0), temperature=400.0)
    energies = np.array([100.0, 200.0]) * INVERSE_CM
    expected = HarmonicThermo(list(energies), potentialenergy=-3.0)
    assert found.left_out == 1
    assert found.free_energy == pytest.approx(expected.get_helmholtz_energy(400.0, verbose=False))
    assert found.free_energy == pytest.approx(found.internal_energy - 400.0 * found.entropy)
    # free energy of oscillators in closed form
    closed = (energies / 2 + BOLTZMANN * 400.0 * np.log1p(-np.exp(-energies / (BOLTZMANN * 400.0)))).sum()
    assert found.free_energy == pytest.approx(-3.0 + closed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` is 0.0 but must be positive, K"),
        ({"temperature": math.nan}, "`temperature` is nan"),
        ({"pressure": -1.0}, "`pressure` is -1.0 but must be positive, bar"),
        ({"symmetry": 0}, "`symmetry` is 0 but must be a symmetry number, 1 or more"),
        (
            {"multiplicity": 2},
            "`multiplicity` is 2, which H2O with 10 electrons cannot have: give 1, 3, 5, …",
        ),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    water = with_frequencies(geometry("H2O"), [1594.7, 3657.1, 3755.9])
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        ideal_gas(water, **options)


def test_only_free_molecules_are_gases() -> None:
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([0, 1, 2]))
    with pytest.raises(InputError, match="only a free molecule is an ideal gas"):
        ideal_gas(with_frequencies(slab, [50.0, 100.0, 200.0]))
