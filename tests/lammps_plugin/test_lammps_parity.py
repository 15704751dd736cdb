"""LAMMPS gives the numbers of Python, on any number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lammps_structures import cases, crystal
from lammps_subject import SYMBOLS, Model, Programs

from mlip.lammps_plugin.parity import Answer, Case, ask_lammps, ask_python, compare

CASES = cases()


@pytest.fixture(scope="session")
def answers(
    model: Model, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, list[Answer]]:
    """By number of processes; one run of LAMMPS each."""
    folder = tmp_path_factory.mktemp("parity")
    return {
        ranks: ask_lammps(
            CASES,
            model.package,
            SYMBOLS,
            folder=folder,
            ranks=ranks,
            lmp=[programs.lmp],
            mpiexec=programs.mpiexec,
        )
        for ranks in (1, 2, 4)
    }


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_python_and_lammps(number: int, answers: dict[int, list[Answer]], model: Model) -> None:
    got, expected = answers[1][number], ask_python(model.potential, CASES[number].atoms)
    difference = compare(got, expected)
    assert difference.forces < 1e-11
    assert difference.energy < 1e-12
    assert difference.energies < 1e-12
    assert difference.virial < 1e-11
    assert difference.atom_virials < 1e-11  # they add up to the virial
    if CASES[number].name != "no edges":
        assert np.abs(got.forces).max() > 1e-4


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_one_and_more_processes(number: int, ranks: int, answers: dict[int, list[Answer]]) -> None:
    difference = compare(answers[ranks][number], answers[1][number])
    assert difference.forces < 1e-12
    assert difference.energies < 1e-12
    assert difference.virial < 1e-12
    assert difference.atom_virials < 1e-12


def test_some_types_only(model: Model, programs: Programs, tmp_path: Path) -> None:
    """With NULL for a type, its atoms do not exist for the model."""
    atoms = crystal()
    pair = (
        "pair_style hybrid mlip zero 5.0",
        "pair_coeff * * mlip {package} Si NULL",
        "pair_coeff * 2 zero",
    )
    (got,) = ask_lammps(
        [Case(name="half", atoms=atoms, pair=pair)],
        model.package,
        SYMBOLS,
        folder=tmp_path,
        lmp=[programs.lmp],
    )
    silicon = atoms.numbers == 14
    expected = ask_python(model.potential, atoms[silicon])
    np.testing.assert_allclose(got.forces[silicon], expected.forces, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.forces[~silicon], 0.0)
    assert got.energy == pytest.approx(expected.energy, abs=1e-10)
