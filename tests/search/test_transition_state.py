"""Transition states from end to end: on plane surfaces, and on GFN2-xTB, whose values are known.

GFN2-xTB: tblite 0.8.0, ASE's masses, Hessians by differences of ±0.005 Å.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from known_surfaces import Plane, at, ring, where

from mlip.calculators.named import named_calculator
from mlip.calculators.surface import as_surface
from mlip.errors import InputError
from mlip.search.lockstep import run
from mlip.search.pursuit import Demands, _Findings, _settled_end, reaction_search
from mlip.search.reaction import energies, vibrations_of
from mlip.search.settling import Settled
from mlip.search.stationary import find_saddles
from mlip.search.transition_state import find_from_guesses, find_transition_states
from mlip.units import KCAL_PER_MOL, VIBRATIONAL_QUANTUM


@cache
def gfn2():
    pytest.importorskip("tblite")
    return as_surface(named_calculator("tblite"))


def hydrogen_cyanide() -> tuple[Atoms, Atoms]:
    """HCN and HNC, on one line: the straight path goes through both heavy atoms."""
    start = Atoms("HCN", [(-1.06, 0, 0), (0, 0, 0), (1.14, 0, 0)])
    return start, Atoms("HCN", [(2.15, 0.05, 0), (0, 0, 0), (1.16, 0, 0)])


def test_hydrogen_cyanide() -> None:
    (found,) = find_transition_states([hydrogen_cyanide()], gfn2(), fmax=0.002)
    assert found.verdict.kind == "intended", found.log
    assert found.verdict.robust
    assert found.saddle.energy == pytest.approx(-146.597901, abs=1e-5)
    assert found.barrier == pytest.approx(3.175370, abs=1e-5)
    assert found.reverse_barrier == pytest.approx(2.307154, abs=1e-5)
    assert found.reaction_energy == pytest.approx(3.175370 - 2.307154, abs=2e-5)
    distances = found.saddle.atoms.get_all_distances()
    lengths = distances[[0, 0, 1], [1, 2, 2]]
    np.testing.assert_allclose(lengths, (1.162138, 1.319009, 1.202837), atol=1e-3)
    np.testing.assert_allclose(found.saddle.modes.frequencies, (-1426.09, 2000.72, 2386.12), atol=1.0)
    np.testing.assert_allclose(found.reactant.modes.frequencies, (777.11, 777.11, 2294.79, 3286.19), atol=1.0)
    assert found.path.structures[0].get_all_distances()[0, 1] != pytest.approx(1.16, abs=0.05)
    assert found.evaluations < 300
    assert found.hessians < 8


def test_ammonia_inverts() -> None:
    """Reactant and product have the same bonds: only places tell them apart."""
    start = molecule("NH3")
    end = start.copy()
    end.positions[:, 2] *= -1.0
    (found,) = find_transition_states([(start, end)], gfn2(), fmax=0.002)
    assert found.verdict.kind == "intended", found.log
    assert found.barrier == pytest.approx(0.264963, abs=1e-5)
    np.testing.assert_allclose(found.saddle.modes.frequencies[[0, 3]], (-971.22, 3612.98), atol=1.0)
    assert np.ptp(found.saddle.atoms.positions @ normal(found.saddle.atoms)) < 1e-2


def normal(atoms: Atoms) -> np.ndarray:
    across = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0))[2]
    return across[2]


def malonaldehyde() -> tuple[Atoms, Atoms]:
    """Its enol form, and the same with the hydrogen at the other oxygen."""
    start = Atoms(
        "O2C3H4",
        [
            (-1.27, 0.70, 0.0), (1.29, 0.72, 0.0),
            (-1.22, -0.60, 0.0), (0.0, -1.22, 0.0), (1.21, -0.53, 0.0),
            (-0.35, 1.08, 0.0), (-2.17, -1.12, 0.0), (-0.02, -2.30, 0.0), (2.17, -1.05, 0.0),
        ],
    )  # fmt: skip
    end = start.copy()
    mirror = [1, 0, 4, 3, 2, 5, 8, 7, 6]
    end.positions = start.positions[mirror] * (-1.0, 1.0, 1.0)
    return start, end


def test_malonaldehyde_hydrogen_transfer() -> None:
    """Degenerate: both barriers are equal, and the saddle is symmetric; it is the same from a guess."""
    start, end = malonaldehyde()
    (found,) = find_transition_states([(start, end)], gfn2())
    assert found.verdict.kind == "intended", found.log
    assert found.mapping.given
    assert found.barrier == pytest.approx(found.reverse_barrier, abs=2e-3)
    assert 0.02 < found.barrier < 0.5
    distances = found.saddle.atoms.get_all_distances()
    assert distances[0, 5] == pytest.approx(distances[1, 5], abs=0.01)
    guess = start.copy()
    guess.positions = 0.5 * (start.positions + end.positions)
    (again,) = find_from_guesses([guess], gfn2())
    assert again.verdict.kind == "verified", again.log
    assert again.saddle.energy == pytest.approx(found.saddle.energy, abs=1e-3)
    other = again.saddle.atoms.get_all_distances()
    assert np.abs(other - distances).max() < 0.01
    assert again.saddle.modes.frequencies[0] == pytest.approx(found.saddle.modes.frequencies[0], rel=0.01)


def test_thermochemistry_of_a_reaction() -> None:
    """The zero-point energy lowers the barrier by about half a quantum of the bond that breaks."""
    pytest.importorskip("pymatgen")
    (found,) = find_transition_states([hydrogen_cyanide()], gfn2())
    saddle, reactant = (energies(point, temperature=298.15) for point in (found.saddle, found.reactant))
    assert saddle.corrected - reactant.corrected == pytest.approx(3.005, abs=2e-3)
    assert saddle.gibbs - reactant.gibbs == pytest.approx(2.961, abs=2e-3)
    assert abs(saddle.gibbs - reactant.gibbs - (saddle.corrected - reactant.corrected)) < 2.0 * KCAL_PER_MOL


def test_hopeless_requests() -> None:
    """Each has its verdict, and what was computed is there."""
    water = molecule("H2O")
    formulas, identical, order = find_transition_states(
        [(water, molecule("CH4")), (water, water[[0, 2, 1]]), (water, water.copy())], EMT()
    )
    assert formulas.verdict.kind == "different formulas"
    assert "H2O, the product CH4" in formulas.verdict.text
    assert formulas.reactant is None
    for found in (identical, order):
        assert found.verdict.kind == "identical ends"
        assert found.reactant is not None
        assert not found.verdict.reached


def different(change: str) -> tuple[Atoms, Atoms]:
    """Two waters that are not on one energy surface."""
    first = molecule("H2O")
    first.set_constraint(FixAtoms([0]))
    second = first.copy()
    if change == "charge":
        second.info["total_charge"] = 2
    elif change == "spin":
        second.info["spin"] = 3
    elif change == "periodic":
        second.set_cell([9, 9, 9])
        second.pbc = True
    elif change == "cell":
        for atoms, edge in ((first, 9.0), (second, 9.5)):
            atoms.set_cell([edge] * 3)
            atoms.pbc = True
    elif change == "fixed":
        second.set_constraint(FixAtoms([1]))
    else:
        second.set_constraint()
        second.positions += [0.0, 0.5, 0.0]
        second.set_constraint(FixAtoms([0]))
    return first, second


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("charge", "the net charge of the reactant is 0, that of the product 2"),
        ("spin", "the multiplicity of the reactant is 1, that of the product 3"),
        ("periodic", "the reactant is a free molecule, the product periodic"),
        ("cell", "the cells of reactant and product differ by 0.5 Å"),
        ("fixed", "the reactant holds 1 atoms fixed, the product 1, or other ones"),
        ("moved", "atom 0 is fixed, but 0.5 Å apart"),
    ],
)
def test_ends_on_different_surfaces(change: str, text: str) -> None:
    """No barrier lies between them, and nothing is computed."""
    (found,) = find_transition_states([different(change)], EMT())
    assert found.verdict.kind == "different conditions"
    assert text in found.verdict.text
    assert found.evaluations == 0


def test_an_end_that_is_no_minimum_is_none_when_met_again() -> None:
    """What the search knows of the ends that it was given holds for the ends of its path, too."""
    (saddle,) = find_saddles([at(0.1, 1.0)], Plane(ring), fmax=1e-4, exact_every=1)
    known = Settled(vibrations=vibrations_of(saddle), minimum=False, why="an imaginary mode remains")
    state = _Findings(demands=Demands(), predicts=True, ends=(known, known))
    with pytest.raises(StopIteration) as stopped:
        next(_settled_end(saddle, state))
    assert stopped.value.value is known


def test_a_surface_that_fails_is_a_verdict_too() -> None:
    class Failing:
        def evaluate(self, structures, *, stress=False, hessian=False):
            raise InputError("no parameters")

    found = find_transition_states([hydrogen_cyanide()], Failing()) + find_from_guesses(
        [molecule("H2O")], Failing()
    )
    for reaction in found:
        assert (reaction.verdict.kind, reaction.verdict.text) == (
            "failed",
            "a structure cannot be evaluated: no parameters",
        )


def test_the_ring_in_one_batch() -> None:
    """From (−1, 0) to (1, 0) and back, side by side: over (0, 1) or (0, −1), both at height 1."""

    sizes = []

    class Batched(Plane):
        def evaluate(self, structures, *, stress=False, hessian=False):
            sizes.append(len(structures))
            return super().evaluate(structures, hessian=hessian)

    surface = Batched(ring)
    ends = at(-0.98, 0.1), at(0.98, 0.1)
    searches = [
        reaction_search(*pair, demands=Demands(images=9), predicts=True) for pair in (ends, ends[::-1])
    ]
    for found in run(surface, searches):
        assert found.verdict.kind == "intended", found.log
        assert found.barrier == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(np.abs(where(found.saddle.atoms)), (0.0, 1.0), atol=1e-3)
        bound = energies(found.saddle, temperature=300.0)  # atoms are fixed: oscillators, no gas
        assert bound.zero_point == pytest.approx(0.5 * VIBRATIONAL_QUANTUM * 50.0**0.5, abs=1e-5)
        assert bound.gibbs == pytest.approx(bound.corrected, abs=1e-3)
    assert max(sizes) >= 14  # the interiors of both bands


def test_done_is_told_of_each_as_it_ends() -> None:
    seen = []
    pairs = [(molecule("H2O"), molecule("CH4")), (molecule("H2O"), molecule("H2O"))]
    find_transition_states(pairs, EMT(), done=lambda number, found: seen.append((number, found.verdict.kind)))
    assert sorted(seen) == [(0, "different formulas"), (1, "identical ends")]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"images": 4}, "`images` is 4 but must be at least 5"), ({"fmax": -1.0}, "`fmax` is -1.0")],
)
def test_bad_demands(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_transition_states([hydrogen_cyanide()], EMT(), **options)
