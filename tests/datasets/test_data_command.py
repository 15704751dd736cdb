from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mlip.cli import app
from mlip.datasets import Frame, H5Dataset, frame_digest, read_frames, write_frames

COMMANDS = ("info", "validate", "split", "thin", "convert")


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def _json(*arguments: object, code: int = 0) -> dict[str, Any]:
    result = _run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _arguments(command: str, file: Path) -> list[object]:
    """A complete call of `command` on `file`."""
    extra: dict[str, list[object]] = {
        "split": ["--out-dir", file.parent / "parts", "--fractions", "0.5,0.5"],
        "thin": ["--out", file.parent / "out.xyz"],
        "convert": ["--out", file.parent / "out.h5"],
    }
    return [command, file, *extra.get(command, [])]


def test_info(xyz: Path, shared_data: Path) -> None:
    text = _run("info", xyz).stdout
    assert "energy: 2 of 2 frames, read from `energy` (2)" in text
    assert "O (2 atoms)" in text
    hessians = _json("info", shared_data / "hessians" / "horm_t1x_sample_100.lmdb")
    assert hessians["labelled"]["hessian"] == 100
    assert (hessians["groups"], hessians["compositions"], hessians["reactions"]) == (51, 51, 0)
    facts = _json("info", shared_data / "mlearn" / "Si" / "test.json")
    assert (facts["frames"], facts["labelled"]["stress"]) == (25, 25)
    assert facts["read"]["sources"]["energy"] == {"outputs.energy": 25}
    assert facts["least_squares_e0"]["e0"]["Si"] == pytest.approx(-5.1, abs=0.3)


def test_info_with_a_named_key(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nenergy=1 mine=-13.6\nH 0 0 0\n")
    facts = _json("info", tmp_path / "a.xyz", "--energy-key", "mine")
    assert facts["energy_per_atom"]["mean"] == -13.6
    result = _run("info", tmp_path / "a.xyz", "--forces-key", "f")
    assert result.exit_code == 2
    assert "no frame has the forces key `f`; keys in the file: `energy`, `mine`" in result.stderr


def test_validate_sound(shared_data: Path) -> None:
    path = shared_data / "acac" / "train_300K.xyz"
    atoms = shared_data / "acac" / "isolated_atoms.xyz"
    facts = _json("validate", path, "--require", "energy,forces", "--isolated-atoms", atoms)
    assert facts["valid"]
    assert facts["findings"] == []
    assert "nothing to remark" in _run("validate", path).stdout


def test_isolated_atoms_have_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(
        "2\nProperties=species:S:1:pos:R:3:f:R:3 energy=-1e3 mine=-31.5\nH 0 0 0 0 0 0\nH 0 0 0.74 0 0 0\n"
    )
    (tmp_path / "atoms.xyz").write_text("1\nenergy=-1e3 mine=-13.6\nH 0 0 0\n")
    atom = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), energy=-13.6)
    write_frames(tmp_path / "atoms.h5", [atom])  # its names are fixed
    for name in ("atoms.xyz", "atoms.h5"):
        keys = ("--energy-key", "mine", "--forces-key", "f")
        facts = _json("validate", tmp_path / "a.xyz", "--isolated-atoms", tmp_path / name, *keys)
        assert facts["findings"] == []


FAULTY = {
    "NaN or infinity": "1\nenergy=nan\nH 0 0 0\n",
    "atoms closer than 0.3 Å": "2\nenergy=1\nH 0 0 0\nH 0 0 0.1\n",
    "periodic cell without volume": '1\nLattice="5 0 0 0 5 0 0 0 0" energy=1\nH 0 0 0\n',
    "no energy": "1\nEnergie=1\nH 0 0 0\n",
}


@pytest.mark.parametrize("check", FAULTY)
def test_validate_faulty(tmp_path: Path, check: str) -> None:
    (tmp_path / "a.xyz").write_text(FAULTY[check])
    result = _run("validate", tmp_path / "a.xyz", "--require", "energy")
    assert result.exit_code == 2
    assert check in " ".join(result.stdout.split())
    assert result.stderr.startswith(
        f"error: {tmp_path / 'a.xyz'}: 1 check failed, the first: {check} (1 frames;"
    )
    assert len(result.stderr.splitlines()) == 1
    facts = _json("validate", tmp_path / "a.xyz", "--require", "energy", code=2)
    assert [f["check"] for f in facts["findings"] if f["severity"] == "error"] == [check]
    assert not facts["valid"]


def test_convert_and_back(tmp_path: Path, water: Frame, crystal: Frame, bare: Frame) -> None:
    write_frames(tmp_path / "a.xyz", [water, crystal, bare])
    options = ["--level-of-theory", "PBE/def2-SVP", "--licence", "MIT"]
    assert _json("convert", tmp_path / "a.xyz", "--out", tmp_path / "a.h5", *options)["frames"] == 3
    assert H5Dataset(tmp_path / "a.h5").attributes["level_of_theory"] == "PBE/def2-SVP"
    assert _run("convert", tmp_path / "a.h5", "--out", tmp_path / "a.db").exit_code == 0
    assert "b.xyz: 3 frames" in _run("convert", tmp_path / "a.db", "--out", tmp_path / "b.xyz").stdout
    assert (tmp_path / "a.xyz").read_text() == (tmp_path / "b.xyz").read_text()


def test_convert_changes_units_and_names(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "rmd17" / "rmd17_aspirin_test_01.npz"
    assert _run("convert", source, "--out", tmp_path / "a.xyz").exit_code == 0
    frames = read_frames(tmp_path / "a.xyz")
    assert frames.report.sources["energy"] == {"REF_energy": 1000}
    with np.load(source) as raw:
        assert frames[3].energy == pytest.approx(raw["energies"][3] * 0.0433641, rel=1e-6)


def test_convert_says_what_it_drops(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3:magmom:R:1\nH 0 0 0 1.5\n")
    assert "magmom (1 frames)" in _run("convert", tmp_path / "a.xyz", "--out", tmp_path / "b.xyz").stdout


def test_split_by_group(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "mlearn" / "Si" / "training.json.gz"
    options = ["--out-dir", tmp_path / "a", "--fractions", "0.8,0.1,0.1", "--by", "group", "--seed", 3]
    facts = _json("split", path, *options)
    parts = [read_frames(p["file"]) for p in facts["parts"]]
    assert [Path(p["file"]).name for p in facts["parts"]] == ["train.xyz", "valid.xyz", "test.xyz"]
    assert sum(len(p) for p in parts) == 214
    groups = [{f.group for f in p} for p in parts]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    options[1] = tmp_path / "b"
    again = _json("split", path, *options)
    assert [p["data_hash"] for p in again["parts"]] == [p["data_hash"] for p in facts["parts"]]


def _molecules() -> list[Frame]:
    """Five molecules with two trajectories each, one structure twice."""
    rng = np.random.default_rng(0)
    frames = [
        Frame(
            positions=np.array([[0, 0, 0], [0, 0, 1.0 + 0.001 * step]]) + rng.normal(),
            atomic_numbers=np.array([1, 1 + molecule]),
            energy=-1.0,
            molecule=f"m{molecule}",
            trajectory=f"m{molecule}/{path}",
            step=step,
        )
        for molecule in range(5)
        for path in range(2)
        for step in range(4)
    ]
    return [*frames, frames[3]]


def test_split_by_molecule_and_trajectory(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.xyz", _molecules())
    for by, name in (
        ("", "molecule"),
        ("molecule", "molecule"),
        ("trajectory", "trajectory"),
        ("molecule,trajectory", "molecule"),
    ):
        options = ["--out-dir", tmp_path / (by or "default"), "--fractions", "0.6,0.2,0.2"]
        options += ["--by", by] if by else []
        parts = [read_frames(p["file"]) for p in _json("split", tmp_path / "a.xyz", *options)["parts"]]
        sides = [{getattr(f, name) for f in part} for part in parts]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
        assert sum(len(part) for part in parts) == 41
    alone = [f for f in _molecules() if f.molecule == "m1"]
    write_frames(tmp_path / "one.xyz", alone)
    message = _run("split", tmp_path / "one.xyz", "--out-dir", tmp_path / "one").stderr
    assert "one would be empty; `by` frame divides frames of one set too" in message


def test_thin(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.xyz", _molecules()[:-1])
    facts = _json("thin", tmp_path / "a.xyz", "--out", tmp_path / "b.xyz", "--multiply-weights")
    assert (facts["frames"], facts["kept"], facts["trajectories"], facts["stands_for_at_most"]) == (
        40,
        20,
        10,
        3,
    )
    thinned = read_frames(tmp_path / "b.xyz")
    assert [(f.step, f.weight) for f in thinned][:4] == [(0, 3.0), (3, 1.0)] * 2
    text = _run("thin", tmp_path / "a.xyz", "--out", tmp_path / "c.xyz", "--rmsd", 0).stdout
    assert "c.xyz: 40 of 40 frames, 10 trajectories" in text
    (tmp_path / "d.xyz").write_text("1\nenergy=1\nH 0 0 0\n")
    assert "nothing was thinned" in _run("thin", tmp_path / "d.xyz", "--out", tmp_path / "e.xyz").stdout


@pytest.mark.parametrize("command", ["split", "thin", "convert", "validate"])
def test_files_are_replaced_by_force_only(tmp_path: Path, command: str) -> None:
    write_frames(tmp_path / "a.xyz", _molecules()[:-1])
    out = tmp_path / ("train.xyz" if command == "split" else "out.xyz")
    options: list[object] = {
        "split": ["--out-dir", tmp_path, "--fractions", "0.5,0.5"],
        "validate": ["--fix", out],
    }.get(command, ["--out", out])
    out.write_text("mine")
    result = _run(command, tmp_path / "a.xyz", *options)
    assert result.exit_code == 2
    assert f"{out}: exists already; give another name, or replace it with --force" in result.stderr
    assert out.read_text() == "mine"
    assert not (tmp_path / "valid.xyz").exists()
    assert _run(command, tmp_path / "a.xyz", *options, "--force").exit_code == 0
    assert len(read_frames(out)) > 10
    own = (
        ["--out-dir", tmp_path, "--fractions", "1"]
        if command == "split"
        else [options[0], tmp_path / "train.xyz"]
    )
    write_frames(tmp_path / "train.xyz", _molecules()[:8])
    result = _run(command, tmp_path / "train.xyz", *own, "--force")
    assert result.exit_code == 2
    assert "is an input, which is never overwritten" in result.stderr


def test_a_conversion_into_hdf5_is_extended_not_replaced(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.xyz", _molecules()[:4])
    command = ("convert", tmp_path / "a.xyz", "--out", tmp_path / "a.h5")
    assert _run(*command).exit_code == _run(*command).exit_code == 0
    assert "is extended, not replaced: to start anew, remove it first" in _run(*command, "--force").stderr
    assert len(read_frames(tmp_path / "a.h5")) == 4


def test_fix_writes_what_is_sound(tmp_path: Path) -> None:
    sound = _molecules()
    text = "".join(FAULTY[check] for check in ("NaN or infinity", "atoms closer than 0.3 Å"))
    write_frames(tmp_path / "sound.xyz", sound)
    content = (tmp_path / "sound.xyz").read_text() + text
    (tmp_path / "a.xyz").write_text(content)
    result = _run("validate", tmp_path / "a.xyz", "--fix", tmp_path / "b.xyz")
    assert result.exit_code == 0
    assert "b.xyz: 40 of 43 frames" in result.stdout
    assert "atoms closer than 0.3 Å" in result.stdout
    assert [frame_digest(f) for f in read_frames(tmp_path / "b.xyz")] == [frame_digest(f) for f in sound[:-1]]
    assert (tmp_path / "a.xyz").read_text() == content
    facts = _json("validate", tmp_path / "a.xyz", "--fix", tmp_path / "b.xyz", "--force")
    assert (facts["valid"], facts["fixed"]["frames"]) == (False, 40)
    assert _run("validate", tmp_path / "b.xyz").exit_code == 0
    (tmp_path / "c.xyz").write_text(text)
    result = _run("validate", tmp_path / "c.xyz", "--fix", tmp_path / "d.xyz")
    assert result.exit_code == 2
    assert "no frame is left without faults" in result.stderr
    assert not (tmp_path / "d.xyz").exists()


def test_split_into_hdf5(tmp_path: Path, shared_data: Path) -> None:
    options = ["--out-dir", tmp_path, "--fractions", "0.6,0.4", "--suffix", "h5"]
    assert _run("split", shared_data / "ethanol" / "train.xyz", *options).exit_code == 0
    whole = {frame_digest(f) for f in read_frames(shared_data / "ethanol" / "train.xyz")}
    parts = [{frame_digest(f) for f in H5Dataset(tmp_path / f"{n}.h5")} for n in ("train", "valid")]
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]


def _pickled(path: Path) -> None:
    np.savez(path, z=np.array([1]), R=np.zeros((1, 1, 3)), x=np.array([{}], dtype=object))


def _foreign_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["mine"] = np.zeros(3)


BAD_FILES: dict[str, tuple[str, Any, str]] = {
    "missing": ("none.xyz", None, "none.xyz: no such file"),
    "ending": ("a.docx", "x", "cannot tell the format from the ending"),
    "truncated": ("a.xyz", "3\nenergy=1\nH 0 0 0\nH 0 0 1\n", "announces 3 atoms but only 2 follow"),
    "empty": ("a.xyz", "", "the file is empty"),
    "element": ("a.xyz", "1\nenergy=1\nQq 0 0 0\n", "atom 0 is 'Qq', which is not the symbol of an element"),
    "foreign h5": ("a.h5", _foreign_h5, "not of the polyad-frames layout (its top-level keys: `mine`)"),
    "foreign npz": ("a.npz", lambda p: np.savez(p, a=np.zeros(2)), "has the keys `a`, but rMD17 has"),
    "pickles": ("a.npz", _pickled, "holds pickled objects, which are refused"),
    "broken json": ("a.json", "[{", "not complete JSON"),
    "no database": ("a.db", "x" * 5000, "not an ASE database"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, command: str, case: str) -> None:
    name, content, message = BAD_FILES[case]
    path = tmp_path / name
    if callable(content):
        content(path)
    elif content is not None:
        path.write_text(content)
    _assert_refused(command, path, message)


@pytest.mark.parametrize("command", ["info", "split", "thin", "convert"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nenergy=1\nH 0 nan 0\n", "frame 0 of .*: `positions` of atom 0 is NaN or infinite"),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 0 nan 0\n",
            "`forces` of atom 0 is NaN or infinite",
        ),
        ('1\nLattice="5 0 0 0 5 0 0 0 0" energy=1\nH 0 0 0\n', "the cell vectors there span no volume"),
    ],
)
def test_unusable_frames(tmp_path: Path, command: str, text: str, message: str) -> None:
    (tmp_path / "a.xyz").write_text(text)
    _assert_refused(command, tmp_path / "a.xyz", message.replace("frame 0 of .*: ", ""))


def _assert_refused(command: str, path: Path, message: str) -> None:
    """Exit code 2, one line on stderr with the message, nothing on stdout, nothing written."""
    before = set(path.parent.iterdir())
    result = _run(*_arguments(command, path))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert set(path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fractions", "0.8,x"], "`--fractions` is '0.8,x' but must be numbers, as 0.8,0.1,0.1"),
        (["--fractions", "0.8,0.8"], "must be positive numbers adding up to at most 1"),
        (["--by", "formula"], "`by` is 'formula' but must be frame, or of group, molecule, reaction, traj"),
        (["--by", "molecule"], "no frame has a molecule, so that they cannot be split by it"),
        (["--by", "group"], "1 group sets of 2 frames cannot be split into 3 parts"),
        (["--suffix", ".docx", "--fractions", "0.5,0.5"], "cannot tell the format from the ending"),
    ],
)
def test_bad_split_options(tmp_path: Path, xyz: Path, options: list[str], message: str) -> None:
    result = _run("split", xyz, "--out-dir", tmp_path / "parts", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_json_is_all_there_is_on_stdout(xyz: Path) -> None:
    """In a process of its own, so that nothing else can print."""
    code = "from mlip.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "info", str(xyz), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["command"] == "data info"
    assert done.stderr == ""
