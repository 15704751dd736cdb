"""Relaxation of many structures at once: each as if it were alone, none in the way of the others."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.calculators import BatchCalculator, as_surface
from mlip.errors import InputError
from mlip.search.batch_frame import cholesky
from mlip.search.batch_relax import BATCH_OPTIMIZERS, Outcome, relax_many
from mlip.search.batch_walker import Walker, displaced
from mlip.units import GPA

pytestmark = pytest.mark.filterwarnings("ignore::mlip.calculators.OutsideDomainWarning")

CLUSTERS = {2: -1.0, 3: -3.0, 4: -6.0, 13: -44.326801}
"""Lowest energies of Lennard-Jones clusters, in epsilon (Wales, Doye, J. Phys. Chem. A 101, 5111 (1997))."""


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=1.0, epsilon=1.0, rc=50.0)


def icosahedron() -> Atoms:
    from ase.cluster import Icosahedron

    atoms = Atoms(Icosahedron("Ar", 2, latticeconstant=1.6))
    atoms.set_cell(None)
    return atoms


def by_place(outcomes: list[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: outcome.place)


def relaxed(structures: list[Atoms], calculator, **options) -> list[Outcome]:
    return by_place(list(relax_many(structures, calculator, **options)))


@pytest.fixture(scope="module")
def default() -> BatchCalculator:
    """The bundled model."""
    return BatchCalculator("default")


@pytest.fixture(scope="module")
def molecules() -> list[Atoms]:
    """Distorted; chains, rings, linear groups, a pyramid, a planar centre, an atom, and a pair that only
    touches."""
    names = ["CH3CH2OH", "C6H6", "CH3CN", "NH3", "CH3CONH2", "CO2", "H2O", "HCN", "CH4", "C2H2", "H2CO"]
    structures = [molecule(name) for name in names]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.08, seed=seed)
    pair = molecule("H2O") + molecule("H2O")
    pair.positions[3:] += [0.3, 2.9, 0.5]
    return [*structures, pair, Atoms("O")]


@pytest.mark.parametrize("optimizer", BATCH_OPTIMIZERS)
def test_known_minima(optimizer: str) -> None:
    random = np.random.default_rng(0)
    tetrahedron = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    starts = [
        Atoms("Ar2", positions=[[0, 0, 0], [1.3, 0.1, 0]]),
        Atoms("Ar3", positions=[[0, 0, 0], [1.1, 0, 0], [0.4, 1.2, 0.1]]),
        Atoms("Ar4", positions=0.42 * np.array(tetrahedron) + random.normal(scale=0.05, size=(4, 3))),
        icosahedron(),
    ]
    found = relaxed(starts, lennard_jones(), fmax=1e-4, optimizer=optimizer)
    for atoms, outcome in zip(starts, found, strict=True):
        assert outcome.status == "converged"
        assert outcome.result is not None
        assert outcome.result.energy == pytest.approx(CLUSTERS[len(atoms)], abs=1e-5)
        assert outcome.result.fmax <= 1e-4
        assert outcome.result.optimizer == optimizer


def test_same_minima_as_bfgs_of_ase_in_fewer_steps(default: BatchCalculator, molecules: list[Atoms]) -> None:
    from mlip.calculators import MLIPCalculator

    calculator = MLIPCalculator("default")
    ours = theirs = 0
    for atoms, outcome in zip(molecules[:9], relaxed(molecules[:9], default, fmax=0.002), strict=True):
        alone = atoms.copy()
        alone.calc = calculator
        driver = BFGS(alone, logfile=None)
        driver.run(fmax=0.002, steps=300)
        result = outcome.result
        assert result is not None
        assert result.converged
        assert result.energy == pytest.approx(alone.get_potential_energy(), abs=2e-3)
        # rigid motions aside: all distances
        np.testing.assert_allclose(result.atoms.get_all_distances(), alone.get_all_distances(), atol=0.02)
        ours, theirs = ours + result.steps, theirs + driver.nsteps
    assert ours < 0.6 * theirs


class Exact:
    """The bundled model without its single-precision draft."""

    def __init__(self, calculator: BatchCalculator) -> None:
        self.evaluate = calculator.evaluate


@settings(max_examples=4, deadline=None)
@given(st.permutations(range(13)), st.sampled_from([1, 12, 40]), st.booleans())
def test_a_batch_is_as_each_alone(
    default: BatchCalculator, molecules: list[Atoms], order: list[int], batch_atoms: int, exact: bool
) -> None:
    """Whatever else is in the batch, and however many enter and leave."""
    surface = Exact(default) if exact else default
    chosen = order[:4]
    options = {"fmax": 0.05, "steps": 30}
    together = relaxed([molecules[k] for k in chosen], surface, batch_atoms=batch_atoms, **options)
    assert [outcome.place for outcome in together] == list(range(4))
    for k, outcome in zip(chosen, together, strict=True):
        (alone,) = relax_many([molecules[k]], surface, **options)
        assert alone.status == outcome.status
        assert alone.result is not None
        assert outcome.result is not None
        assert alone.result.steps == outcome.result.steps
        np.testing.assert_allclose(
            alone.result.atoms.positions, outcome.result.atoms.positions, atol=1e-7 if exact else 1e-3
        )


def test_a_draft_in_single_precision_is_confirmed(default: BatchCalculator, molecules: list[Atoms]) -> None:
    """Energies and forces at the end are those of full precision, also of what has not converged."""
    for steps in (0, 3, 100):
        for outcome in relaxed(molecules[:4], default, fmax=0.005, steps=steps):
            result = outcome.result
            assert result is not None
            assert result.steps <= steps
            (exact,) = default.evaluate([result.atoms])
            assert result.energy == pytest.approx(exact.energy, abs=1e-9)
            np.testing.assert_allclose(result.atoms.get_forces(), exact.forces, atol=1e-9)
            assert outcome.status == ("converged" if steps == 100 else "not converged")
            assert (result.fmax <= 0.005) == result.converged


def test_structures_enter_as_others_leave(default: BatchCalculator, molecules: list[Atoms]) -> None:
    taken = []

    def source():
        for k, atoms in enumerate(molecules[:8]):
            taken.append(k)
            yield atoms

    outcomes = relax_many(source(), default, batch_atoms=20)
    first = next(outcomes)
    assert len(taken) < 8
    assert sorted([first.place, *(outcome.place for outcome in outcomes)]) == list(range(8))


def strained() -> list[Atoms]:
    cube = bulk("Cu", a=3.7, cubic=True)
    cube.set_cell(cube.cell.array @ [[1.02, 0.03, 0], [0, 0.98, 0.01], [0, 0, 1]], scale_atoms=True)
    cube.rattle(0.05, seed=1)
    return [cube, bulk("Al", a=4.1)]


@pytest.fixture(scope="module", params=[0.0, 5.0])
def pressed(request: pytest.FixtureRequest) -> tuple[float, list[Atoms]]:
    """A pressure in GPa, and where ASE's filter and BFGS take the strained crystals under it."""
    reached = strained()
    for atoms in reached:
        atoms.calc = EMT()
        filtered = FrechetCellFilter(atoms, scalar_pressure=request.param * GPA)
        BFGS(filtered, logfile=None).run(fmax=2e-3, steps=500)
    return request.param, reached


@pytest.mark.parametrize("optimizer", BATCH_OPTIMIZERS)
def test_cells_reach_those_of_the_filter_of_ase(optimizer: str, pressed: tuple[float, list[Atoms]]) -> None:
    pressure, reached = pressed
    found = relaxed(strained(), EMT(), cell=True, pressure_gpa=pressure, fmax=2e-3, optimizer=optimizer)
    for expected, outcome in zip(reached, found, strict=True):
        result = outcome.result
        assert result is not None
        assert result.converged
        assert result.pressure_gpa == pytest.approx(pressure, abs=0.05)
        assert result.atoms.cell.volume == pytest.approx(expected.cell.volume, rel=2e-3)
        assert result.energy == pytest.approx(expected.get_potential_energy(), abs=2e-3)


def test_displacements_are_those_of_the_filter_of_ase() -> None:
    """From an undeformed cell the generalised coordinates and forces are the same."""
    (atoms, _) = strained()
    atoms.calc = EMT()
    filtered = FrechetCellFilter(atoms, scalar_pressure=0.01)
    walker = Walker(
        atoms=atoms.copy(), free=np.ones(len(atoms), dtype=bool), scale=float(len(atoms)), pressure=0.01
    )
    walker.look(as_surface(EMT()).evaluate([walker.atoms], stress=True)[0])
    np.testing.assert_allclose(walker.gradient, -filtered.get_forces(), atol=1e-10)
    assert walker.fmax == pytest.approx(np.linalg.norm(filtered.get_forces(), axis=1).max())
    change = np.random.default_rng(0).normal(scale=0.1, size=(len(atoms) + 3, 3))
    change[-3:] += change[-3:].T
    positions, cells = displaced(
        atoms.positions[None], atoms.cell.array[None], change[None], np.array([float(len(atoms))])
    )
    filtered.set_positions(filtered.get_positions() + change)
    np.testing.assert_allclose(positions[0], atoms.positions, atol=1e-10)
    np.testing.assert_allclose(cells[0], atoms.cell.array, atol=1e-10)


def test_fixed_atoms_go_with_the_cell() -> None:
    (atoms, _) = strained()
    atoms.set_constraint(FixAtoms([1, 2]))
    for optimizer in BATCH_OPTIMIZERS:
        (outcome,) = relax_many([atoms], EMT(), cell=True, fmax=0.01, optimizer=optimizer)
        assert outcome.result is not None
        assert outcome.result.converged
        moved = outcome.result.atoms.get_scaled_positions() - atoms.get_scaled_positions()
        np.testing.assert_allclose(moved[1:3], 0.0, atol=1e-9)
        assert np.abs(moved[[0, 3]]).max() > 1e-3


def test_fixed_atoms_stay() -> None:
    atoms = Atoms("Ar4", positions=[[0, 0, 0], [1.05, 0, 0], [0.4, 1.2, 0], [0.5, 0.4, 1.1]])
    atoms.set_constraint(FixAtoms([0, 1]))
    for optimizer in BATCH_OPTIMIZERS:
        (outcome,) = relax_many([atoms], lennard_jones(), fmax=1e-3, optimizer=optimizer)
        assert outcome.status == "converged"
        assert outcome.result is not None
        final = outcome.result.atoms
        np.testing.assert_array_equal(final.positions[:2], atoms.positions[:2])
        assert np.abs(final.get_forces(apply_constraint=False)[:2]).max() > 0.1
        assert len(final.constraints) == 1


def test_each_failure_is_its_own(default: BatchCalculator) -> None:
    bound = molecule("H2O")
    bound.set_constraint(FixBondLength(0, 1))
    clash = molecule("CH4")
    clash.positions[2] = clash.positions[1] + [0.1, 0.1, 0.1]
    start = molecule("H2O")
    start.rattle(0.05)
    structures = [start, clash, Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]]), Atoms(), bound, start]
    found = relaxed(structures, default, fmax=0.02)
    messages = [outcome.message for outcome in found]
    assert [outcome.status for outcome in found] == ["converged", *["failed"] * 4, "converged"]
    assert "atoms 1 (H) and 2 (H) are 0.1732 Å apart at the start" in messages[1]
    assert "Fe" in messages[2]
    assert "no atoms" in messages[3]
    assert "FixBondLength" in messages[4]
    assert all(outcome.result is None for outcome in found[1:5])


def test_factors_of_matrices_that_are_not_definite() -> None:
    """What rounding or a runaway does to one of a batch does not reach the others."""
    good = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    worse = torch.tensor([[1e8, 1e8], [1e8, 1e8 - 1e-6]], dtype=torch.float64)
    lost, huge = torch.full_like(good, torch.nan), torch.full_like(good, 1e200)
    found = cholesky(torch.stack([good, worse, lost, huge]))
    torch.testing.assert_close(found[0], torch.linalg.cholesky(good))
    torch.testing.assert_close(found[1] @ found[1].T, worse, rtol=1e-6, atol=0)
    for place in (2, 3):
        torch.testing.assert_close(found[place], torch.eye(2, dtype=torch.float64))


def test_too_few_steps_return_the_lowest(default: BatchCalculator, molecules: list[Atoms]) -> None:
    found = relaxed(molecules[:3], default, fmax=1e-4, steps=2)
    for outcome in found:
        assert outcome.status == "not converged"
        assert outcome.result is not None
        assert outcome.result.steps == 2
        assert outcome.result.energy < outcome.result.initial_energy


class Cliff(Calculator):
    """Downhill to x = 0, and nothing to be computed beyond it."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.atoms.positions[0, 0] < 0.0:
            raise FloatingPointError("beyond the edge")
        self.results = {"energy": float(self.atoms.positions[0, 0]), "forces": np.array([[-1.0, 0.0, 0.0]])}


@pytest.mark.parametrize("optimizer", BATCH_OPTIMIZERS)
def test_a_structure_that_runs_away_is_given_up(optimizer: str) -> None:
    (outcome,) = relax_many([Atoms("H", positions=[[1, 0, 0]])], Cliff(), optimizer=optimizer, steps=900)
    assert outcome.status == "failed"
    assert re.search(r"ran away in step \d+: FloatingPointError: beyond the edge", outcome.message)
    assert outcome.result is not None
    assert -1e-9 < outcome.result.atoms.positions[0, 0] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "bfgs"}, '`optimizer` is "bfgs" but in batches must be one of: auto, internal'),
        ({"fmax": 0.0}, "`fmax` is 0.0 but must be a positive force"),
        ({"batch_atoms": 0}, "`batch_atoms` is 0 but must be at least 1"),
        ({"pressure_gpa": 1.0}, "acts on the cell, which is kept"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        relax_many([], EMT(), **options)


def test_nothing_to_do() -> None:
    assert list(relax_many([], EMT())) == []
