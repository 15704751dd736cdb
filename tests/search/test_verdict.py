"""Verdicts: what is said of a saddle and of the ends of its path."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlip.search.verdict import describe_connection, judge_ends, judge_saddle, same_minimum


def modes(*frequencies: float) -> SimpleNamespace:
    return SimpleNamespace(frequencies=np.array(frequencies))


@pytest.mark.parametrize("frequencies", [(-500.0, 100.0), (-60.0, -5.0, 10.0)])
def test_first_order_saddles(frequencies) -> None:
    assert judge_saddle(modes(*frequencies)) is None


@pytest.mark.parametrize(
    ("frequencies", "text"),
    [
        ((20.0, 100.0), "no imaginary mode: it is a minimum"),
        ((-500.0, -80.0, 10.0), "2 imaginary modes, 500.0i, 80.0i cm⁻¹, but must have one"),
        ((-500.0, -20.0, 10.0), "2 imaginary modes, 500.0i, 20.0i cm⁻¹"),
        ((-30.0, 10.0), "the only imaginary mode, 30.0i cm⁻¹, is too soft"),
    ],
)
def test_what_is_none(frequencies, text: str) -> None:
    verdict = judge_saddle(modes(*frequencies))
    assert verdict.kind == "not a first-order saddle"
    assert text in verdict.text
    assert not verdict.reached


def chain(*at: float) -> Atoms:
    """Hydrogens on a line."""
    return Atoms(f"H{len(at)}", [(x, 0.0, 0.0) for x in at])


LEFT, RIGHT = chain(0.0, 0.74, 3.0), chain(0.0, 2.3, 3.04)
APART, ALL = chain(0.0, 2.0, 4.0), chain(0.0, 0.7, 1.4)


def test_intended_either_way_round() -> None:
    for ends in ((LEFT, RIGHT), (RIGHT, LEFT)):
        verdict = judge_ends(LEFT, RIGHT, ends)
        assert (verdict.kind, verdict.robust, verdict.same_conformers) == ("intended", True, True)
        assert verdict.reached


def test_other_conformers_are_intended_and_said_to_be_so() -> None:
    far = chain(0.0, 0.74, 6.0)
    verdict = judge_ends(LEFT, RIGHT, (far, RIGHT))
    assert (verdict.kind, verdict.same_conformers) == ("intended", False)
    assert "as other conformers" in verdict.text


def test_one_sided_unintended_and_same_basin() -> None:
    verdict = judge_ends(LEFT, RIGHT, (LEFT, APART))
    assert verdict.kind == "one-sided"
    assert "another species in 3 pieces (from the reactant: H0-H1 broken)" in verdict.text
    assert judge_ends(LEFT, RIGHT, (ALL, APART)).kind == "unintended"
    assert judge_ends(LEFT, RIGHT, (LEFT, LEFT)).kind == "same basin"
    assert judge_ends(LEFT, RIGHT, (APART, APART)).kind == "same basin"


def test_bonds_near_the_limit_make_a_verdict_less_sure() -> None:
    loose = chain(0.0, 0.74, 0.74 + 2 * 0.31 * 1.22)  # bonded if the limit were 1.26
    verdict = judge_ends(loose, RIGHT, (loose, RIGHT))
    assert verdict.kind == "intended"
    assert judge_ends(LEFT, RIGHT, (loose, RIGHT)).robust is False


def test_equivalent_atoms_are_not_the_same_atoms() -> None:
    """By bonds atom by atom this is another species, though the graph is the same."""
    water = molecule("H2O")
    pair = Atoms("H2O2", [(-0.9, 0.3, 0), (5.9, 0.3, 0), (0, 0, 0), (5, 0, 0)])
    exchanged = pair[[1, 0, 2, 3]]
    assert judge_ends(pair, pair, (pair, exchanged)).kind == "one-sided"
    assert "with equivalent atoms exchanged" in judge_ends(pair, pair, (pair, exchanged)).text
    assert len(water) == 3


def test_inversion_is_told_by_places() -> None:
    """Ammonia and its mirror image have the same bonds and, atom by atom, different places."""
    up = molecule("NH3")
    down = up.copy()
    down.positions[:, 2] *= -1.0
    assert not same_minimum(up, down)
    assert judge_ends(up, down, (down, up)).kind == "intended"
    assert judge_ends(up, down, (up, up)).kind == "same basin"


def test_connections_of_a_guess() -> None:
    assert describe_connection((LEFT, RIGHT)).text.endswith("H0-H1 broken; H1-H2 formed")
    assert describe_connection((LEFT, LEFT)).kind == "same basin"
    assert "conformers" in describe_connection((LEFT, chain(0.0, 0.74, 5.0))).text
