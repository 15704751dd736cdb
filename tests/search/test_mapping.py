"""Bonds, isomorphisms and atom mappings."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.alignment import aligned, rmsd
from mlip.errors import InputError
from mlip.search.bonds import bond_changes, bond_matrix, describe_changes, fragments
from mlip.search.isomorphism import fingerprint, isomorphisms
from mlip.search.mapping import best_mapping, map_atoms


def changed(mapping) -> int:
    return len(mapping.broken) + len(mapping.formed)


def shuffled(atoms: Atoms, seed: int) -> Atoms:
    return atoms[np.random.default_rng(seed).permutation(len(atoms)).tolist()]


def keto_enol() -> tuple[Atoms, Atoms]:
    """Acetaldehyde and vinyl alcohol: a hydrogen goes from carbon to oxygen."""
    keto = molecule("CH3CHO")
    carbonyl, oxygen = (int(i) for i in (np.flatnonzero(keto.symbols == "C")[0], 0))
    oxygen = int(np.flatnonzero(keto.symbols == "O")[0])
    methyl = next(int(i) for i in np.flatnonzero(keto.symbols == "C") if bond_matrix(keto)[i].sum() == 4)
    leaving = next(int(i) for i in np.flatnonzero(bond_matrix(keto)[methyl]) if keto.symbols[i] == "H")
    enol = keto.copy()
    away = keto.positions[oxygen] - keto.positions[carbonyl]
    enol.positions[leaving] = keto.positions[oxygen] + 0.97 * away / np.linalg.norm(away)
    return keto, enol


def test_bonds() -> None:
    water = bond_matrix(molecule("H2O"))
    assert water.sum() == 4
    assert not water[1, 2]
    assert fragments(water) == 1
    pair = Atoms("H2H2", [[0, 0, 0], [0.74, 0, 0], [5, 0, 0], [5.74, 0, 0]])
    assert fragments(bond_matrix(pair)) == 2
    crystal = bulk("Si", cubic=True)
    assert (bond_matrix(crystal).sum(axis=1) == 4).all()  # through the faces of the cell


def test_changes_are_named() -> None:
    keto, enol = keto_enol()
    broken, formed = bond_changes(bond_matrix(keto), bond_matrix(enol))
    assert len(broken) == len(formed) == 1
    text = describe_changes(keto, broken, formed)
    assert "broken; " in text
    assert text.endswith("formed")
    assert describe_changes(keto, [], []) == "no bond changes"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_isomorphisms_do_not_depend_on_the_order(seed: int) -> None:
    first = molecule("CH3CONH2")
    second = shuffled(first, seed)
    graphs = bond_matrix(first), bond_matrix(second)
    colours = first.numbers, second.numbers
    assert fingerprint(colours[0], graphs[0]) == fingerprint(colours[1], graphs[1])
    found = list(isomorphisms(colours, graphs))
    assert len(found) == 1  # but for the hydrogens of methyl and of the amide, which are interchangeable
    place = found[0]
    assert (colours[1][place] == colours[0]).all()
    assert (graphs[1][np.ix_(place, place)] == graphs[0]).all()


def test_different_graphs_have_no_isomorphism() -> None:
    first, second = molecule("CH3CH2OH"), molecule("CH3OCH3")
    assert sorted(first.numbers) == sorted(second.numbers)
    graphs = bond_matrix(first), bond_matrix(second)
    assert fingerprint(first.numbers, graphs[0]) != fingerprint(second.numbers, graphs[1])
    assert not list(isomorphisms((first.numbers, second.numbers), graphs))


def test_benzene_has_twelve_isomorphisms() -> None:
    ring = molecule("C6H6")
    graph = bond_matrix(ring)
    assert len(list(isomorphisms((ring.numbers, ring.numbers), (graph, graph)))) == 12


def test_the_order_given_is_kept_where_it_can_be_meant() -> None:
    keto, enol = keto_enol()
    mapping = map_atoms(keto, enol)
    assert mapping.given
    assert (mapping.order == np.arange(len(keto))).all()
    assert changed(mapping) == 2
    swap = keto.copy()  # a degenerate reaction, as it stands: two hydrogens exchanged
    hydrogens = np.flatnonzero(keto.symbols == "H")[[0, 1]]
    swap.positions[hydrogens] = keto.positions[hydrogens[::-1]]
    assert map_atoms(keto, swap).given


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_shuffled_atoms_are_put_back(seed: int) -> None:
    keto, enol = keto_enol()
    product = shuffled(enol, seed)
    product.rotate(70.0, (1.0, 0.2, 0.3))
    mapping = best_mapping(keto, product)
    assert changed(mapping) == 2
    ordered = product[mapping.order.tolist()]
    assert (ordered.numbers == keto.numbers).all()
    assert rmsd(ordered, enol) < 0.05 or mapping.rmsd <= rmsd(enol, keto) + 1e-6
    if not (product.numbers == keto.numbers).all():
        assert not map_atoms(keto, product).given


def test_handedness_is_kept() -> None:
    """A chiral molecule, shuffled: of the mappings that change no bond, that which inverts no centre."""
    chiral = Atoms(
        "CHFClO", [(0, 0, 0), (0.6, 0.6, 0.6), (-0.8, -0.8, 0.8), (-1.0, 1.0, -1.0), (0.8, -0.8, -0.8)]
    )
    product = shuffled(chiral, 3)
    mapping = best_mapping(chiral, product)
    assert (changed(mapping), mapping.inverted) == (0, 0)
    mirrored = chiral.copy()
    mirrored.positions[:, 0] *= -1.0
    assert best_mapping(chiral, mirrored).inverted == 1
    methane = molecule("CH4")
    methane.rattle(0.02, seed=0)
    turned = shuffled(methane, 5)
    turned.rotate(100.0, (0.0, 1.0, 0.4))
    found = best_mapping(methane, turned)
    assert found.inverted == 0
    assert found.rmsd < 1e-6


def test_refusals() -> None:
    with pytest.raises(InputError, match="the reactant is H2O, the product CH4"):
        map_atoms(molecule("H2O"), molecule("CH4"))
    first = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    with pytest.raises(InputError, match="must be in the same order"):
        map_atoms(first, first[::-1])
    chain = molecule("trans-butane")
    scattered = chain.copy()
    scattered.positions = np.random.default_rng(0).uniform(0.0, 60.0, size=(len(chain), 3))
    with pytest.raises(InputError, match="no order was found"):
        map_atoms(chain, scattered[::-1])


def test_alignment_turns_but_never_mirrors() -> None:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    moved = atoms.copy()
    moved.rotate(123.0, (0.3, -1.0, 0.5))
    moved.translate((1.0, 2.0, 3.0))
    np.testing.assert_allclose(aligned(moved, atoms).positions, atoms.positions, atol=1e-10)
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1.0
    assert rmsd(mirrored, atoms) > 0.2


def test_alignment_of_crystals_takes_the_nearest_images() -> None:
    crystal = bulk("Cu", cubic=True)
    moved = crystal.copy()
    moved.positions[0] += crystal.cell[0]
    moved.translate((0.1, 0.0, 0.0))
    np.testing.assert_allclose(aligned(moved, crystal).positions, crystal.positions, atol=1e-10)
