"""The database of relaxations: what is one structure, and one row for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.db import connect
from ase.db.sqlite import SQLite3Database

from mlip.search.batch_relax import Outcome
from mlip.search.results_database import Origin, ResultsDatabase, digest_of


def water(**info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def test_the_digest_knows_all_that_decides_the_result() -> None:
    charged, magnetic, fixed, bound, other, moved = (water() for _ in range(6))
    charged.set_initial_charges([1.0, 0.0, 0.0])
    magnetic.set_initial_magnetic_moments([2.0, 0.0, 0.0])
    fixed.set_constraint(FixAtoms([0]))
    bound.set_constraint(FixBondLength(0, 1))
    other.set_constraint(FixBondLength(0, 2))
    moved.positions[0, 0] += 1e-9
    said = [water(charge=-1), water(spin=5), water(charge=0.5), water(charge=2, spin=3)]
    structures = [water(), charged, magnetic, fixed, bound, other, moved, *said]
    digests = [digest_of(atoms) for atoms in structures]
    assert len(set(digests)) == len(structures)
    assert digests == [digest_of(atoms.copy()) for atoms in structures]


@pytest.mark.parametrize("info", [{"charge": 0}, {"spin": 1}, {"charge": 0.0, "spin": 0}, {"name": "water"}])
def test_what_models_do_not_tell_apart_is_the_same(info: dict[str, object]) -> None:
    """And as it always was: databases of before go on."""
    plain = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]])
    assert digest_of(plain) == "xb3aa493184969f47"
    plain.info.update(info)
    assert digest_of(plain) == "xb3aa493184969f47"


def outcome(message: str) -> Outcome:
    return Outcome(place=0, status="failed", message=message, result=None, novelty=None)


def messages(path: Path) -> list[str]:
    return [row.message for row in connect(str(path)).select()]


def test_a_row_is_replaced_also_within_one_transaction(tmp_path: Path) -> None:
    path, origin = tmp_path / "results.db", Origin(source="a", frame=0, digest="x1")
    with ResultsDatabase(path, {}) as database:
        database.add(origin, water(), outcome("first"))
        database.add(origin, water(), outcome("second"))
    assert messages(path) == ["second"]
    with ResultsDatabase(path, {}) as database:
        database.add(Origin(source="a", frame=0, digest="unreadable"), None, outcome("third"))
    assert messages(path) == ["third"]
    (row,) = connect(str(path)).select()
    assert row.natoms == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_tried_again_is_written_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before it is committed, or just after."""
    path, origin = tmp_path / "results.db", Origin(source="a", frame=0, digest="x1")
    with ResultsDatabase(path, {}) as database:
        database.add(origin, water(), outcome("first"))
    leave = SQLite3Database.__exit__

    def stopped(self: SQLite3Database, kind, error, trace) -> None:
        monkeypatch.setattr(SQLite3Database, "__exit__", leave)
        leave(self, KeyboardInterrupt if when == "before" else kind, error, trace)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ResultsDatabase(path, {}) as database:  # noqa: PT012
        database.add(origin, water(), outcome("second"))
        monkeypatch.setattr(SQLite3Database, "__exit__", stopped)
        database.flush()
    assert messages(path) == ["second"]
    np.testing.assert_array_equal(connect(str(path)).get_atoms(1).positions, water().positions)
