"""`BatchCalculator`: many structures at once, each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.calculators import ASESurface, BatchCalculator, MLIPCalculator, StructureError
from mlip.calculators.batch_graph import LARGEST_ALL_PAIRS, BatchNeighbors
from mlip.graph import collate
from mlip.neighbors import build_graph
from mlip.potential import Potential

CUTOFF = 4.0
FIELDS = ("positions", "atomic_numbers", "cell", "pbc", "batch", "senders", "receivers", "shifts")


def chain(count: int) -> Atoms:
    return Atoms(f"C{count}", positions=[[1.4 * k, 0.1 * (k % 3), 0.0] for k in range(count)])


def scattered(seed: int, kinds: list[int]) -> list[Atoms]:
    """Structures at random: molecules of 1 to 12 atoms, crystals, slabs and one of too many atoms for all
    pairs."""
    random = np.random.default_rng(seed)
    found = []
    for kind in kinds:
        if kind == 0:
            atoms = bulk("Si", cubic=True)
        elif kind == 1:
            atoms = chain(LARGEST_ALL_PAIRS + 1)
        elif kind == 2:
            atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]], cell=[3.1, 3.7, 0], pbc=(True, True, False))
        else:
            atoms = chain(kind - 2)
        atoms.rattle(0.05, rng=random)
        found.append(atoms)
    return found


def same_graph(structures: list[Atoms], neighbors: BatchNeighbors) -> None:
    made = neighbors.graph(structures)
    expected = collate([build_graph(atoms, CUTOFF) for atoms in structures])
    for name in FIELDS:
        torch.testing.assert_close(getattr(made, name), getattr(expected, name), msg=name, rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 14), min_size=1, max_size=8))
def test_graph_is_that_of_each_structure_alone(seed: int, kinds: list[int]) -> None:
    """Also after the structures have moved a little, and changed places."""
    neighbors = BatchNeighbors(CUTOFF, device="cpu")
    structures = scattered(seed, kinds)
    same_graph(structures, neighbors)
    for atoms in structures:
        atoms.positions += 0.02
        atoms.rattle(0.02, seed=seed)
    same_graph(structures, neighbors)
    same_graph(structures[::-1], neighbors)


def test_lists_stay_with_structures_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    neighbors = BatchNeighbors(CUTOFF, device="cpu")
    crystals = [bulk("Si", cubic=True), bulk("Si", cubic=True, a=5.3), bulk("Si", cubic=True, a=5.6)]
    structures = [crystals[0], molecule("H2O"), *crystals[1:]]
    neighbors.keep(structures)
    neighbors.graph(structures)
    with monkeypatch.context() as patched:
        patched.setattr("mlip.calculators.skin.build_graph", None)
        crystals[0].positions[0] += 0.1
        for shuffled in (
            structures[::-1],
            structures[1:],
            crystals[1:],
            [atoms.copy() for atoms in crystals[1:]],
        ):
            neighbors.keep(shuffled)
            neighbors.graph(shuffled)
        neighbors.keep(structures[1:2])
        with pytest.raises(TypeError):  # all lists were dropped
            neighbors.graph(crystals[:1])
    same_graph(crystals, neighbors)


def test_as_each_structure_alone(potential: Potential) -> None:
    structures = [*scattered(3, [0, 1, 2, 9]), molecule("CH3CH2OH"), Atoms("H")]
    for dtype in ("float64", "float32"):
        frozen = MLIPCalculator(potential, dtype=dtype).potential
        together = BatchCalculator(frozen, max_atoms=60).evaluate(structures)
        for atoms, found in zip(structures, together, strict=True):
            atoms.calc = MLIPCalculator(frozen, dtype=dtype)
            tolerance = 1e-9 if dtype == "float64" else 1e-3
            assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=tolerance)
            np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=tolerance)


def test_stress(potential: Potential) -> None:
    structures = scattered(1, [0, 0])
    for atoms, found in zip(
        structures, BatchCalculator(potential).evaluate(structures, stress=True), strict=True
    ):
        atoms.calc = MLIPCalculator(potential)
        np.testing.assert_allclose(found.stress, atoms.get_stress(), atol=1e-10)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("FeO", positions=[[0, 0, 0], [0, 0, 2]]), "Fe"),
        (Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.01]]), "0.0100 Å apart"),
        (Atoms("OH", positions=[[0, 0, 0], [0, np.nan, 1]]), "position of atom 1"),
        (Atoms("O", positions=[[0, np.inf, 0]]), "position of atom 0"),
        (Atoms("O", cell=[1, 0, 0], pbc=True), "no volume"),
    ],
)
def test_a_bad_structure_is_named_by_its_place(potential: Potential, bad: Atoms, message: str) -> None:
    structures = [molecule("H2O"), molecule("CH4"), bad, molecule("NH3")]
    for max_atoms in (4096, 5):
        with pytest.raises(StructureError, match=message) as caught:
            BatchCalculator(potential, max_atoms=max_atoms).evaluate(structures)
        assert caught.value.place == 2


def test_stress_without_a_cell(potential: Potential) -> None:
    with pytest.raises(StructureError, match="no volume") as caught:
        BatchCalculator(potential).evaluate([bulk("Si"), molecule("H2O")], stress=True)
    assert caught.value.place == 1


def test_other_calculators_name_the_place_too() -> None:
    class Fails(LennardJones):
        def calculate(self, atoms, properties, system_changes) -> None:
            if len(atoms) == 3:
                raise RuntimeError("no\nconvergence")
            super().calculate(atoms, properties, system_changes)

    with pytest.raises(StructureError, match="RuntimeError: no convergence") as caught:
        ASESurface(Fails()).evaluate([molecule("H2"), molecule("H2O")])
    assert caught.value.place == 1
