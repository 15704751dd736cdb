"""Elastic constants: the exact crystal of nearest neighbours, relaxed ions, Born's criterion."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import LBFGS
from matscipy.elasticity import fit_elastic_constants

from mlip.calculators.surface import ASESurface
from mlip.errors import InputError
from mlip.search.elasticity import ElasticConstants, elastic_constants, in_crystal_axes
from mlip.search.relax import relax
from mlip.units import GPA


def test_nearest_neighbour_crystal() -> None:
    """C11 = 72, C12 = C44 = 36, B = 48 ε/σ³; all else zero."""
    atoms = bulk("Ar", "fcc", a=1.587401052)
    calculator = LennardJones(sigma=1.0, epsilon=1.0, rc=1.35)
    found = elastic_constants(atoms, calculator, strain=1e-4)
    expected = np.zeros((6, 6))
    expected[:3, :3] = 36.0
    expected[range(6), range(6)] = [72.0, 72.0, 72.0, 36.0, 36.0, 36.0]
    np.testing.assert_allclose(found.stiffness * GPA, expected, atol=2e-3)
    assert found.bulk_modulus * GPA == pytest.approx(48.0, abs=1e-3)
    assert found.bulk_bounds[0] == pytest.approx(found.bulk_bounds[1])
    # of cubic crystals: G_V = (C11 − C12 + 3 C44)/5, G_R = 5 (C11 − C12) C44 / (4 C44 + 3 (C11 − C12))
    reuss, voigt = 5 * 36 * 36 / (4 * 36 + 3 * 36), (36 + 3 * 36) / 5
    np.testing.assert_allclose(np.array(found.shear_bounds) * GPA, [reuss, voigt], rtol=1e-4)
    assert found.stable
    assert found.pressure * GPA == pytest.approx(0.0, abs=1e-5)
    assert found.hessian_method == "none needed"
    bulk_modulus, shear = 48.0, (reuss + voigt) / 2
    assert found.youngs_modulus * GPA == pytest.approx(
        9 * bulk_modulus * shear / (3 * bulk_modulus + shear), rel=1e-4
    )
    assert found.poisson_ratio == pytest.approx(
        (3 * bulk_modulus - 2 * shear) / (6 * bulk_modulus + 2 * shear), rel=1e-4
    )


@pytest.fixture(scope="module")
def hexagonal() -> Atoms:
    """hcp nickel with an aluminium atom in each cell: ions move when it is strained."""
    atoms = bulk("Ni", "hcp", a=2.6, c=4.2)
    atoms.numbers[1] = 13
    return relax(atoms, EMT(), cell=True, fmax=1e-5).atoms


@pytest.fixture(scope="module")
def found(hexagonal: Atoms) -> ElasticConstants:
    return elastic_constants(hexagonal, EMT())


def test_ions_are_relaxed(hexagonal: Atoms, found: ElasticConstants) -> None:
    """As by minimising the energy in each strained cell with another optimiser."""
    reference = hexagonal.copy()
    reference.calc = EMT()
    expected, _ = fit_elastic_constants(
        reference, "triclinic", 5, 0.0025, optimizer=LBFGS, verbose=False, fmax=1e-6, logfile=None
    )
    np.testing.assert_allclose(found.stiffness, expected / GPA, atol=0.05)
    clamped, _ = fit_elastic_constants(reference, "triclinic", 5, 0.0025, verbose=False)
    assert np.abs(clamped / GPA - found.stiffness).max() > 2.0
    assert found.hessian_method == "finite-difference"
    assert found.bulk_bounds[0] <= found.bulk_modulus <= found.bulk_bounds[1]
    # hexagonal symmetry, which the fit was not told of
    assert found.stiffness[5, 5] == pytest.approx(
        (found.stiffness[0, 0] - found.stiffness[0, 1]) / 2, rel=5e-3
    )


def test_order_of_the_indices(found: ElasticConstants) -> None:
    """Hexagonal: 1, 2 and 6 differ from 3, 4 and 5, and 4 is 5."""
    stiffness = found.stiffness
    assert stiffness[3, 3] == pytest.approx(stiffness[4, 4], rel=1e-3)
    assert stiffness[5, 5] != pytest.approx(stiffness[3, 3], rel=0.05)
    assert stiffness[0, 0] == pytest.approx(stiffness[1, 1], rel=5e-3)
    assert stiffness[2, 2] != pytest.approx(stiffness[0, 0], rel=0.02)


def test_constants_in_crystal_axes_do_not_depend_on_the_frame() -> None:
    pytest.importorskip("spglib", reason="the phonons extra is not installed")
    atoms = bulk("Ar", "fcc", a=1.587401052)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    turned = elastic_constants(atoms, LennardJones(sigma=1.0, epsilon=1.0, rc=1.35), strain=1e-4).stiffness
    expected = np.zeros((6, 6))
    expected[:3, :3] = 36.0
    expected[range(6), range(6)] = [72.0, 72.0, 72.0, 36.0, 36.0, 36.0]
    assert np.abs(turned * GPA - expected).max() > 1.0
    np.testing.assert_allclose(in_crystal_axes(turned, atoms) * GPA, expected, atol=2e-3)


def test_unstable_crystals_are_reported() -> None:
    found = elastic_constants(bulk("Cu", "sc", a=2.4), EMT())
    assert not found.stable
    assert found.eigenvalues[0] < 0.0


def test_few_calls(hexagonal: Atoms) -> None:
    calls: list[int] = []

    class Counting(ASESurface):
        def evaluate(self, structures, *, stress: bool = False, hessian: bool = False):
            calls.append(len(structures))
            return super().evaluate(structures, stress=stress, hessian=hessian)

    elastic_constants(hexagonal, Counting(EMT()))
    assert calls[:2] == [1, 30]
    assert len(calls) <= 6


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (molecule("H2O"), {}, "not periodic in three directions"),
        (bulk("Cu"), {"strain": 0.0}, r"`strain` is 0\.0 but must be small and positive"),
        (bulk("Cu"), {"strain": 0.5}, r"`strain` is 0\.5"),
        (bulk("Cu", "sc", a=2.4) * (2, 1, 1), {}, "the ions of the crystal have no stable place"),
    ],
)
def test_what_is_refused(atoms: Atoms, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        elastic_constants(atoms, EMT(), **options)
