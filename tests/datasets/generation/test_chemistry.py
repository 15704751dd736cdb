"""Molecules from SMILES: geometries, force fields, hydrogen shifts, growth under valence rules."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem

from mlip.datasets.generation.constitutions import enumerate_small, is_sensible, sample_larger
from mlip.datasets.generation.force_field import ForceField, embed, parse
from mlip.datasets.generation.reactions import hydrogen_shifts, shifted_geometry
from mlip.datasets.generation.topology import Topology
from mlip.errors import InputError


@pytest.mark.parametrize("smiles", ["CC(C)(C)(C)C", "", "C1CC", "[Xx]", "hello"])
def test_bad_smiles_are_named(smiles: str) -> None:
    with pytest.raises(InputError, match="is not a SMILES of a molecule"):
        parse(smiles)


def test_conformers_repeat() -> None:
    first, second = (embed(parse("CCO"), 2, 7)[1] for _ in range(2))
    assert len(first) == 2
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("smiles", ["CO", "CP(C)C"])  # MMFF94, and UFF where that has no parameters
def test_force_field_hessian_is_that_of_its_energy(smiles: str) -> None:
    """The gradient that RDKit gives is wrong where its cache of distances is stale."""
    mol, (positions,) = embed(parse(smiles), 1, 1)
    field = ForceField([mol])
    energy = field._parts[0]._field.CalcEnergy
    x, step = positions.ravel(), 1e-3
    shifts = step * np.eye(x.size)[[0, 4]]
    a, b = shifts
    mixed = sum(
        s * energy((x + p + q).tolist()) for p, q, s in ((a, b, 1), (a, -b, -1), (-a, b, -1), (-a, -b, 1))
    )
    same = energy((x + a).tolist()) + energy((x - a).tolist()) - 2 * energy(x.tolist())
    hessian = field.hessian(positions)
    assert hessian[0, 4] == pytest.approx(mixed / (4 * step**2) * 0.0433641, abs=2e-3)
    assert hessian[0, 0] == pytest.approx(same / step**2 * 0.0433641, rel=1e-3)


def test_force_fields_side_by_side_do_not_couple() -> None:
    mol, (positions,) = embed(parse("O"), 1, 1)
    both = ForceField([mol, mol]).hessian(np.concatenate([positions, positions + 3.0]))
    one = ForceField([mol]).hessian(positions)
    np.testing.assert_allclose(both[:9, :9], one, atol=1e-9)
    assert not both[:9, 9:].any()


@pytest.mark.parametrize(
    ("smiles", "products"),
    [
        ("CC(C)=O", {"C=C(C)O"}),
        ("CC(=O)CC(C)=O", {"C=C(O)CC(C)=O", "CC(=O)C=C(C)O"}),
        ("NC=O", {"N=CO"}),
        ("O=CC=CO", {"O=CCC=O", "O=CC=CO", "OC=C=CO", "O=C=CCO"}),  # both the 1,3 and the 1,5 shift
        ("CC", set()),
    ],
)
def test_hydrogen_shifts(smiles: str, products: set[str]) -> None:
    assert shifted(smiles) == products


def test_hydrogen_shift_makes_a_ring_aromatic() -> None:
    assert "Oc1ccccn1" in shifted("O=c1cccc[nH]1")


def shifted(smiles: str) -> set[str]:
    shifts = hydrogen_shifts(Chem.AddHs(parse(smiles)))
    return {str(Chem.MolToSmiles(Chem.RemoveHs(s.product))) for s in shifts}


def test_shifted_geometry_has_the_bonds_of_the_product() -> None:
    mol, (positions,) = embed(parse("CC(C)=O"), 1, 1)
    shift = next(hydrogen_shifts(mol))
    geometry = shifted_geometry(shift, positions, np.random.default_rng(0))
    assert Topology.of_mol(shift.product).intact(geometry)
    assert not Topology.of_mol(mol).intact(geometry)


def test_small_constitutions_are_complete() -> None:
    two = [
        "C#C",
        "C#N",
        "C=C",
        "C=O",
        "CC",
        "CN",
        "CO",
        "N#N",
        "NN",
        "NO",
    ]  # without peroxide, diazene, methanimine
    assert enumerate_small(2) == sorted(["C", "N", "O", *two])


def test_sample_of_constitutions() -> None:
    seeds, groups = ["CCO", "c1ccccc1", "CS(C)=O", "CP(C)C"], ["F", "Cl", "S(=O)(=O)C", "C(=O)N", "P(=O)(O)O"]
    quota = {6: 6, 8: 8}
    found = sample_larger(seeds, groups, quota, seed=3)
    assert found == sample_larger(seeds, groups, quota, seed=3)
    assert found != sample_larger(seeds, groups, quota, seed=4)
    mols = [Chem.MolFromSmiles(s) for s in found]
    assert len(set(found)) == len(found) == 14
    assert sorted(m.GetNumHeavyAtoms() for m in mols) == [6] * 6 + [8] * 8
    assert all(is_sensible(m) and Chem.GetFormalCharge(m) == 0 for m in mols)
    assert {15, 16} & {a.GetAtomicNum() for m in mols for a in m.GetAtoms()}


@pytest.mark.parametrize(
    "smiles", ["COOC", "OC(O)C", "C1=C=CC1", "CN(Cl)C", "CP=C", "O=S=C", "C[CH2]", "NP(C)C"]
)
def test_absurd_groups_are_refused(smiles: str) -> None:
    assert not is_sensible(Chem.MolFromSmiles(smiles))
