from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from mlip.datasets import Frame, LabelKeys, frame_digest, read_frames, write_frames
from mlip.errors import InputError


def test_round_trip(tmp_path: Path, water: Frame, crystal: Frame, bare: Frame) -> None:
    frames, name = [water, crystal, bare], "a b#?%.db"
    assert write_frames(tmp_path / name, frames) == 3
    back = read_frames(tmp_path / name)
    assert [frame_digest(f) for f in back] == [frame_digest(f) for f in frames]
    assert [dict(f.info) for f in back] == [dict(f.info) for f in frames]
    assert back[0].group == "water"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_rows_written_by_ase(tmp_path: Path, name: str) -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]], constraint=FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-30.0, forces=np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    forces = np.arange(6.0).reshape(2, 3)
    with ase.db.connect(tmp_path / name) as database:
        for i in range(12):
            database.write(atoms, step=i, dft=-31.0, data={"f": forces, "note": [1, 2]})
    frames = read_frames(tmp_path / name)
    assert [f.step for f in frames] == list(range(12))
    assert frames[0].energy == -30.0
    assert frames[0].forces is not None
    assert frames[0].forces[0, 2] == 1.0  # not zeroed by the constraint
    named = read_frames(tmp_path / name, keys=LabelKeys(energy="dft", forces="f"))
    assert named[3].energy == -31.0
    np.testing.assert_array_equal(named[3].forces, forces)


def test_stress_of_a_three_atom_cell_is_one_stress(tmp_path: Path) -> None:
    atoms = Atoms("Si3", positions=np.eye(3), cell=[5, 5, 5], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, stress=np.array([1.0, 2, 3, 4, 5, 6]))
    ase.db.connect(tmp_path / "a.db").write(atoms)
    expected = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    np.testing.assert_array_equal(read_frames(tmp_path / "a.db")[0].stress, expected)


def test_trajectory(tmp_path: Path, crystal: Frame, water: Frame) -> None:
    ase.io.write(tmp_path / "a.traj", [crystal.to_atoms(), water.to_atoms()])
    assert [frame_digest(f) for f in read_frames(tmp_path / "a.traj")] == [
        frame_digest(f) for f in (crystal, water)
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.db", b"not a database at all " * 50, "not an ASE database, or a damaged one"),
        (
            "a.json",
            b'{"1": {"numbers": [1]}, "ids": [1], "nextid": 2}',
            "not an ASE database, or a damaged one",
        ),
        ("a.json", b'{"x": 1}', "Does not resemble ASE JSON database"),
        ("a.json", b'{"ids": [1', "not an ASE database, or a damaged one"),
        ("a.traj", b"not a trajectory " * 50, "not an ASE trajectory"),
    ],
)
def test_foreign_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / name)


def test_foreign_sqlite_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a b#?%.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x INTEGER)")
        database.commit()
    content = path.read_bytes()
    with pytest.raises(InputError, match="not an ASE database: an SQLite file without the table `systems`"):
        read_frames(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_formats(tmp_path: Path, water: Frame) -> None:
    with pytest.raises(
        InputError, match="cannot write the format npz; those that can be written: extxyz, hdf5, ase-db"
    ):
        write_frames(tmp_path / "a.npz", [water])
    with pytest.raises(InputError, match="cannot tell the format"):
        write_frames(tmp_path / "a.pdf", [water])


def test_failed_writing_leaves_nothing(tmp_path: Path, water: Frame) -> None:
    def frames():
        yield water
        raise RuntimeError("stop")

    for name in ("a.xyz", "a.db", "a.h5"):
        with pytest.raises(RuntimeError, match="stop"):
            write_frames(tmp_path / name, frames())
    assert not list(tmp_path.iterdir())
