from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlip.datasets import Frame, LabelKeys, frame_digest, read_frames, read_isolated_atoms, write_frames
from mlip.datasets.extxyz_header import parse_header
from mlip.errors import InputError


def test_bare_names_are_read_as_stored(xyz: Path) -> None:
    frames = read_frames(xyz)
    assert len(frames) == 2
    assert frames[0].energy == -1.5
    assert frames[0].forces is not None
    np.testing.assert_array_equal(frames[0].forces[0], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(frames[0].cell, np.diag([10.0, 11.0, 12.0]))
    assert frames[0].pbc.all()
    assert frames.report.sources["energy"] == {"energy": 2}
    assert any("forces: 2 of 2 frames, read from `forces` (2)" in line for line in frames.report.lines())


def test_ase_reads_the_same_structures(shared_data: Path) -> None:
    path = shared_data / "acac" / "train_300K.xyz"
    ours = read_frames(path, index="::50")
    theirs = ase.io.read(path, index="::50")
    assert len(ours) == len(theirs) == 10
    for frame, atoms in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.atomic_numbers, atoms.numbers)
        np.testing.assert_array_equal(frame.cell, atoms.cell.array)
        np.testing.assert_array_equal(frame.pbc, atoms.pbc)
        assert frame.energy == atoms.calc.results["energy"]
        np.testing.assert_array_equal(frame.forces, atoms.calc.results["forces"])


def test_triclinic_cell_as_ase_writes_it(tmp_path: Path, crystal: Frame) -> None:
    ase.io.write(tmp_path / "a.xyz", crystal.to_atoms())
    back = read_frames(tmp_path / "a.xyz")[0]
    np.testing.assert_allclose(back.cell, crystal.cell, atol=1e-12)
    np.testing.assert_allclose(back.stress, crystal.stress, atol=1e-12)
    np.testing.assert_array_equal(back.pbc, crystal.pbc)


def test_ase_reads_what_we_write(tmp_path: Path, crystal: Frame) -> None:
    write_frames(tmp_path / "a.xyz", [crystal])
    atoms = ase.io.read(tmp_path / "a.xyz")
    assert atoms.info["REF_energy"] == crystal.energy
    np.testing.assert_array_equal(atoms.arrays["REF_forces"], crystal.forces)
    np.testing.assert_array_equal(np.reshape(atoms.info["REF_stress"], (3, 3)), crystal.stress)
    np.testing.assert_array_equal(atoms.cell.array, crystal.cell)


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz"])
def test_round_trip_bit_for_bit(tmp_path: Path, name: str, water: Frame, crystal: Frame, bare: Frame) -> None:
    frames = [water, crystal, bare]
    assert write_frames(tmp_path / name, frames) == 3
    back = read_frames(tmp_path / name)
    assert [frame_digest(f) for f in back] == [frame_digest(f) for f in frames]
    assert [dict(f.info) for f in back] == [dict(f.info) for f in frames]
    assert [(f.group, f.weight) for f in back] == [("water", 2.5), ("", 1.0), ("", 1.0)]
    assert not list(tmp_path.glob(".*"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    positions=arrays(np.float64, (2, 3), elements=st.floats(-1e6, 1e6)),
    energy=st.floats(-1e9, 1e9),
    text=st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12),
)
def test_any_number_and_text_survives(
    tmp_path: Path, positions: np.ndarray, energy: float, text: str
) -> None:
    info = {"note": f"x{text}y"}
    frame = Frame(positions=positions, atomic_numbers=np.array([1, 6]), energy=energy, info=info)
    write_frames(tmp_path / "a.xyz", [frame])
    back = read_frames(tmp_path / "a.xyz")[0]
    assert frame_digest(back) == frame_digest(frame)
    assert back.info == info


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=1 b=2.5 c=T d=text", {"a": 1, "b": 2.5, "c": True, "d": "text"}),
        ('a = "two words" flag b=-1e-3', {"a": "two words", "flag": True, "b": -1e-3}),
        ('a="say \\"hi\\"" b="_JSON [1, 2]"', {"a": 'say "hi"', "b": [1, 2]}),
        ("a={x y} b='u v' 3_x=1", {"a": "x y", "b": "u v", "3_x": 1}),
        ("url=http://a.b/?c=d e=1", {"url": "http://a.b/?c=d", "e": 1}),
    ],
)
def test_header(line: str, expected: dict) -> None:
    assert parse_header(line, where="here") == expected


def test_header_arrays() -> None:
    values = parse_header('a="1 2 3" b=[1.5,2] c="T F" virial="1 2 3 4 5 6 7 8 9"', where="here")
    assert values["a"].tolist() == [1, 2, 3]
    assert values["b"].tolist() == [1.5, 2.0]
    assert values["c"].tolist() == [True, False]
    assert values["virial"].tolist() == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


@pytest.mark.parametrize("value", ["12", "T", "1 2", "a, b", "_JSON x", "\\", 'a="b"', "x=y", "-0.5", ""])
def test_text_stays_text(tmp_path: Path, value: str) -> None:
    frame = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), info={"note": value})
    write_frames(tmp_path / "a.xyz", [frame])
    assert read_frames(tmp_path / "a.xyz")[0].info == {"note": value}


def test_plain_xyz_keeps_its_comment(shared_data: Path) -> None:
    frame = read_frames(shared_data / "minima" / "vitamin_c.xyz")[0]
    assert frame.formula == "C6H8O6"
    assert str(frame.info["comment"]).startswith("Vitamin C")
    assert frame.energy is None


def test_atomic_numbers_instead_of_symbols(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nProperties=Z:I:1:pos:R:3 energy=1\n14 0 0 0\n")
    assert read_frames(tmp_path / "a.xyz")[0].atomic_numbers.tolist() == [14]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\nenergy=1\nH 0 0 0\nH 0 0 1\n", r"frame 0 \(line 1\) .* announces 3 atoms but only 2 follow"),
        ("1\nenergy=1\n", "announces 1 atoms but only 0 follow"),
        ("1\nenergy=1\nH 0 0 0\n2\n", r"frame 1 \(line 4\) .* announces 2 atoms but only 0 follow"),
        ("H 0 0 0\n", "expected a number of atoms, found 'H 0 0 0'"),
        ("0\n\n", "number of atoms is 0 but must be at least 1"),
        ("1\nenergy=1\nXx 0 0 0\n", "atom 0 is 'Xx', which is not the symbol of an element"),
        ("1\nenergy=1\nX 0 0 0\n", "atom 0 is 'X', which is not the symbol"),
        ("1\nenergy=1\nH 0 0\n", "line 3 has 3 columns but `Properties` announces 4"),
        ("1\nenergy=1\nH 0 0 abc\n", "column `pos` holds something that is not a number"),
        ("1\nenergy=1\nH 0 nan 0\n", "frame 0 of .*: `positions` of atom 0 is NaN or infinite"),
        (
            "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nH 0 0 0 0 0 0\nH 0 0 1 0 inf 0\n",
            "`forces` of atom 1 is NaN or infinite",
        ),
        ("1\nenergy=nan\nH 0 0 0\n", "`energy` is NaN or infinite"),
        ("1\nenergy=abc\nH 0 0 0\n", "`energy` is 'abc' but must be one number"),
        ('1\nLattice="1 0 0 0 1 0" energy=1\nH 0 0 0\n', "`Lattice` is array.* but must be nine numbers"),
        (
            '1\nLattice="5 0 0 0 5 0 5 5 0"\nH 0 0 0\n',
            "periodic along abc, but the cell vectors there span no volume",
        ),
        ('1\npbc="T T T"\nH 0 0 0\n', "the cell vectors there span no volume"),
        ('1\nname="open energy=1\nH 0 0 0\n', "cannot understand the line from 'name=\"open"),
        ("1\nProperties=species:S:1:pos:Q:3\nH 0 0 0\n", "`Properties` is 'species:S:1:pos:Q:3' but must be"),
        ("1\nProperties=species:S:1:x:R:3\nH 0 0 0\n", "has no `pos:R:3`"),
        ("1\nProperties=pos:R:3\n0 0 0\n", "the elements are unknown"),
        (
            '1\nstress="1 2 3" Lattice="5 0 0 0 5 0 0 0 5"\nH 0 0 0\n',
            "`stress` has 3 numbers but must have 6",
        ),
        ("", "the file is empty"),
        ("\n\n", "holds no frames"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_frames(path)
    assert str(path) in str(caught.value)


def test_damaged_gzip(tmp_path: Path, xyz: Path, damaged_gzip: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bad.xyz.gz").write_bytes(damaged_gzip(xyz.read_bytes()))
    with pytest.raises(InputError, match=r"bad\.xyz\.gz: the compressed file is damaged or cut short"):
        read_frames(tmp_path / "bad.xyz.gz")


def test_truncated_gzip(tmp_path: Path, xyz: Path) -> None:
    packed = gzip.compress(xyz.read_bytes() * 50)
    (tmp_path / "cut.xyz.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_frames(tmp_path / "cut.xyz.gz")


def test_binary_file(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"\xff\xfe\x00\x01" * 100)
    with pytest.raises(InputError, match="not a text file"):
        read_frames(tmp_path / "a.xyz")


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.xyz: no such file"):
        read_frames(tmp_path / "none.xyz")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(InputError, match=r"cannot tell the format from the ending; known ones: \.xyz"):
        read_frames(tmp_path / "a.docx")
    with pytest.raises(InputError, match="is a folder"):
        read_frames(tmp_path)
    with pytest.raises(InputError, match="`format` is 'vasp' but must be one of extxyz"):
        read_frames(tmp_path / "a.docx", format="vasp")


@pytest.mark.parametrize(
    ("index", "steps"),
    [
        (":", [0, 1, 2, 3, 4]),
        ("1:3", [1, 2]),
        ("::2", [0, 2, 4]),
        ("-2:", [3, 4]),
        ("-1", [4]),
        (2, [2]),
        (slice(3), [0, 1, 2]),
    ],
)
def test_index(tmp_path: Path, index: str | int | slice, steps: list[int]) -> None:
    frames = [Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), step=i) for i in range(5)]
    write_frames(tmp_path / "a.xyz", frames)
    assert [f.step for f in read_frames(tmp_path / "a.xyz", index=index)] == steps


@pytest.mark.parametrize(
    ("index", "message"), [("a:b", "must be a number or start:stop:step"), ("7:", "selects none")]
)
def test_bad_index(xyz: Path, index: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_frames(xyz, index=index)


def test_isolated_atoms(shared_data: Path) -> None:
    assert read_isolated_atoms(shared_data / "acac" / "isolated_atoms.xyz") == {
        1: -13.568422178253735,
        6: -1026.8538996116154,
        8: -2037.796869412825,
    }
    assert sorted(read_isolated_atoms(shared_data / "3bpa" / "iso_atoms.xyz")) == [1, 6, 7, 8]  # not marked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\nenergy=1\nH 0 0 0\nH 0 0 1\n", "has no isolated atoms"),
        ("1\nconfig_type=IsolatedAtom\nH 0 0 0\n", "the isolated H atom has no energy"),
        (
            "1\nenergy=-1\nH 0 0 0\n1\nenergy=-2\nH 0 0 0\n",
            "two isolated H atoms have energies -1.0 and -2.0 eV",
        ),
    ],
)
def test_bad_isolated_atoms(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(InputError, match=message):
        read_isolated_atoms(tmp_path / "a.xyz")


def test_isolated_atoms_in_a_training_file(tmp_path: Path) -> None:
    marked, pair = "1\nconfig_type=IsolatedAtom mine=-13.5\nH 0 0 0\n", "2\nmine=-31\nH 0 0 0\nH 0 0 0.7\n"
    text = f"{marked}{pair}1\nmine=0\nH 0 0 0\n"
    (tmp_path / "a.xyz").write_text(text)
    assert read_isolated_atoms(tmp_path / "a.xyz", keys=LabelKeys(energy="mine")) == {1: -13.5}
