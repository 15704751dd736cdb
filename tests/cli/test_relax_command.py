"""`mlip relax`: what it writes, says and returns, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read, write

import mlip.cli.relax
from mlip.calculators import MLIPCalculator
from mlip.errors import InputError


def test_molecule(run, folder: Path, model_file: Path) -> None:
    before = Path("water.xyz").read_bytes()
    result = run("relax", "water.xyz", "--model", model_file)
    assert result.exit_code == 0, result.stderr
    assert "water.xyz: converged in" in result.stdout
    assert "-> water-relaxed.xyz" in result.stdout
    assert Path("water.xyz").read_bytes() == before
    relaxed = read("water-relaxed.xyz")
    fresh = relaxed.copy()
    fresh.calc = MLIPCalculator(model_file)
    assert np.linalg.norm(fresh.get_forces(), axis=1).max() <= 0.0501
    assert relaxed.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-6)
    assert not np.allclose(relaxed.get_all_distances(), molecule("H2O").get_all_distances(), atol=1e-3)
    assert sorted(path.name for path in folder.iterdir()) == [
        "silicon.cif", "two.xyz", "water-relaxed.xyz", "water.xyz"
    ]  # fmt: skip


def test_json_is_all_there_is_on_stdout(run, folder: Path, model_file: Path) -> None:
    result = run("relax", "water.xyz", "two.xyz", "--model", model_file, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert result.stderr == ""
    assert report["command"] == "relax"
    assert report["converged"] is True
    assert [(item["file"], item["frame"], item["formula"]) for item in report["structures"]] == [
        ("water.xyz", 0, "H2O"),
        ("two.xyz", 0, "H2O"),
        ("two.xyz", 1, "CH4"),
    ]
    first, again, _ = report["structures"]
    assert first["energy_eV"] == pytest.approx(again["energy_eV"], abs=1e-9)
    assert first["energy_eV"] < first["initial_energy_eV"]
    assert first["energy_eV"] == pytest.approx(read("water-relaxed.xyz").get_potential_energy(), abs=1e-6)
    assert first["fmax_eV_per_A"] <= 0.05
    assert [len(atoms) for atoms in read("two-relaxed.xyz", index=":")] == [3, 5]


def test_not_converged_is_written_all_the_same(run, folder: Path, model_file: Path) -> None:
    result = run("relax", "water.xyz", "--model", model_file, "--steps", 1, "--fmax", 1e-8, "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["converged"] is False
    assert report["structures"][0]["steps"] == 1
    assert Path("water-relaxed.xyz").exists()
    plain = run("relax", "water.xyz", "--model", model_file, "--steps", 1, "--fmax", 1e-8)
    assert plain.exit_code == 3
    assert "NOT converged after 1 step," in plain.stdout


@pytest.fixture
def water_runs_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Water cannot be evaluated a second time; everything else can."""
    calculate, seen = MLIPCalculator.calculate, []

    def runaway(self, atoms, properties, system_changes) -> None:
        if len(atoms) == 3:
            seen.append(atoms)
            if len(seen) > 1:
                raise InputError("the model ends here")
        calculate(self, atoms, properties, system_changes)

    monkeypatch.setattr(MLIPCalculator, "calculate", runaway)


@pytest.mark.parametrize("optimizer", ["auto", "bfgs"])
def test_one_that_runs_away_is_written_and_the_next_go_on(
    run, folder: Path, model_file: Path, water_runs_away: None, optimizer: str
) -> None:
    result = run("relax", "two.xyz", "--model", model_file, "--json", "--optimizer", optimizer)
    assert result.exit_code == 3, result.stderr
    report = json.loads(result.stdout)
    first, second = report["structures"]
    assert (report["converged"], first["converged"], second["converged"]) == (False, False, True)
    assert first["message"].startswith("ran away in step ")
    assert second["message"] == ""
    assert result.stderr == f"two.xyz@0: {first['message']}\n"
    water, methane = read("two-relaxed.xyz", index=":")
    np.testing.assert_allclose(water.get_all_distances(), read("water.xyz").get_all_distances(), atol=1e-6)
    assert (len(water), len(methane)) == (3, 5)
    assert (bool(water.info["converged"]), bool(methane.info["converged"])) == (False, True)


def test_what_is_finished_is_written_when_stopped(
    run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relax = mlip.cli.relax.run_relaxation

    def stop_at_methane(atoms, *arguments, **options):
        if len(atoms) == 5:
            raise KeyboardInterrupt
        return relax(atoms, *arguments, **options)

    monkeypatch.setattr("mlip.cli.relax.run_relaxation", stop_at_methane)
    result = run("relax", "two.xyz", "--model", model_file)
    assert result.exit_code == 130
    assert result.stdout.splitlines()[1:] == ["1 of 2 structures -> two-relaxed.xyz"]
    assert len(read("two-relaxed.xyz", index=":")) == 1
    write("methane.xyz", molecule("CH4"))
    alone = run("relax", "methane.xyz", "--model", model_file)
    assert (alone.exit_code, alone.stdout) == (130, "")


def test_a_file_is_named_once_it_is_there(
    run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("relax", "two.xyz", "--model", model_file).stdout.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "two.xyz@0",
        "two.xyz@1",
        "2 structures -> two-relaxed.xyz",
    ]
    assert not any("->" in line for line in said[:2])

    def fail(*arguments, **options) -> None:
        raise PermissionError(13, "permission denied", "two-relaxed.xyz")

    monkeypatch.setattr("mlip.cli.relax.write_structures", fail)
    for name in ("two.xyz", "water.xyz"):
        result = run("relax", name, "--model", model_file)
        assert result.exit_code == 2
        assert "->" not in result.stdout


def test_crystal_under_pressure_keeps_its_format(run, folder: Path, model_file: Path) -> None:
    options = ("--model", model_file, "--cell", "--pressure", 20, "--fmax", 0.003, "--json")
    result = run("relax", "silicon.cif", *options)
    assert result.exit_code == 0, result.stderr
    (item,) = json.loads(result.stdout)["structures"]
    assert item["pressure_GPa"] == pytest.approx(20.0, abs=0.3)
    assert item["output"] == "silicon-relaxed.cif"
    relaxed = read("silicon-relaxed.cif")
    assert relaxed.cell.volume == pytest.approx(item["volume_A3"], abs=1e-2)
    assert relaxed.cell.volume != pytest.approx(5.2**3, abs=0.1)


def test_cell_is_kept_unless_asked(run, folder: Path, model_file: Path) -> None:
    assert run("relax", "silicon.cif", "--model", model_file, "--out", "si.xyz").exit_code == 0
    np.testing.assert_allclose(read("si.xyz").cell.array, np.eye(3) * 5.2, atol=1e-6)


def test_one_output_for_several_inputs(run, folder: Path, model_file: Path) -> None:
    assert run("relax", "water.xyz", "two.xyz", "--model", model_file, "--out", "all.xyz").exit_code == 0
    assert [str(atoms.symbols) for atoms in read("all.xyz", index=":")] == ["OH2", "OH2", "CH4"]
    assert not Path("water-relaxed.xyz").exists()


def test_trajectory(run, folder: Path, model_file: Path) -> None:
    result = run("relax", "water.xyz", "--model", model_file, "--trajectory", "path.traj", "--json")
    (item,) = json.loads(result.stdout)["structures"]
    assert len(read("path.traj", index=":")) == item["steps"] + 1


def test_poscar_and_its_fixed_atoms(run, folder: Path, model_file: Path) -> None:
    atoms = bulk("Si", a=5.3, cubic=True)
    atoms.rattle(0.05, seed=2)
    atoms.set_constraint(FixAtoms([0]))
    write("POSCAR", atoms, format="vasp")
    assert run("relax", "POSCAR", "--model", model_file).exit_code == 0
    relaxed = read("POSCAR-relaxed", format="vasp")
    np.testing.assert_allclose(relaxed.positions[0], atoms.positions[0], atol=1e-8)
    assert not np.allclose(relaxed.positions[1:], atoms.positions[1:], atol=1e-3)


def test_old_labels_do_not_reach_the_result(run, folder: Path, model_file: Path) -> None:
    water = molecule("H2O")
    water.info.update(REF_energy=-5.0, name="kept")
    water.arrays["REF_forces"] = np.ones((3, 3))
    write("labelled.xyz", water)
    assert run("relax", "labelled.xyz", "--model", model_file).exit_code == 0
    relaxed = read("labelled-relaxed.xyz")
    assert relaxed.info["name"] == "kept"
    assert "REF_energy" not in relaxed.info
    assert "REF_forces" not in relaxed.arrays


def test_results_say_which_model_made_them(run, folder: Path, model_file: Path) -> None:
    assert run("relax", "water.xyz", "--model", model_file, "--steps", 1, "--fmax", 1e-9).exit_code == 3
    info = read("water-relaxed.xyz").info
    assert info["model"] == str(model_file)
    assert info["model_sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()[:16]
    assert not info["converged"]
    options = ("water.xyz", "--json", "--steps", 1, "--fmax", 0.5)
    bundled = json.loads(run("relax", *options).stdout)
    assert (bundled["model"], bundled["level_of_theory"]) == ("default", "GFN2-xTB")
    own = json.loads(run("relax", *options, "--model", model_file).stdout)
    assert (own["model_sha256"], own["level_of_theory"]) == (info["model_sha256"], "none")


def test_float32_and_optimizer_are_passed_on(run, folder: Path, model_file: Path) -> None:
    options = ("--dtype", "float32", "--optimizer", "fire", "--device", "cpu", "--json", "--fmax", 0.1)
    report = json.loads(run("relax", "water.xyz", "--model", model_file, *options).stdout)
    assert (report["dtype"], report["device"]) == ("float32", "cpu")
    assert report["structures"][0]["optimizer"] == "fire"


def test_missing_file(run, folder: Path, model_file: Path) -> None:
    message = run.refused("relax", "nowhere.xyz", "--model", model_file)
    assert message == "error: nowhere.xyz: no such file or directory\n"
    assert "nowhere.xyz" in run.refused("relax", "water.xyz", "nowhere.xyz", "--model", model_file)
    assert not Path("water-relaxed.xyz").exists()


def test_unreadable_files(run, folder: Path, model_file: Path) -> None:
    Path("empty.xyz").write_text("")
    assert "empty.xyz: the file is empty" in run.refused("relax", "empty.xyz", "--model", model_file)
    Path("foreign.xyz").write_text("this is no structure\nat all\n")
    Path("foreign.dat").write_bytes(bytes(range(256)))
    Path("short.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\n")
    for name in ("foreign.xyz", "foreign.dat", "short.xyz"):
        assert f"{name}: cannot be read as a structure" in run.refused("relax", name, "--model", model_file)
    Path("none.xyz").write_text("0\n\n")
    message = run.refused("relax", "none.xyz", "--model", model_file)
    assert "none.xyz: the file holds no atoms" in message or "none.xyz: cannot be read" in message
    Path("folder").mkdir()
    assert "folder: is a folder: name a database for the results, --out results.db" in run.refused(
        "relax", "folder", "--model", model_file
    )


def test_unknown_element(run, folder: Path, model_file: Path) -> None:
    write("iron.xyz", Atoms("FeO", positions=[[0, 0, 0], [1.6, 0, 0]]))
    message = run.refused("relax", "water.xyz", "iron.xyz", "--model", model_file)
    assert "iron.xyz: element(s) Fe are unknown to this model; it was trained on H C O Si" in message
    assert not Path("water-relaxed.xyz").exists()


def test_charges_are_refused(run, folder: Path, model_file: Path) -> None:
    water = read("water.xyz")
    water.info["charge"] = 1
    write("ion.xyz", water, format="extxyz")
    for options in ((), ("--optimizer", "bfgs")):
        message = run.refused("relax", "ion.xyz", "--model", model_file, *options)
        assert "ion.xyz" in message
        assert "its charge is 1, but the model takes no account of that" in message
    assert not Path("ion-relaxed.xyz").exists()


def test_bad_geometry(run, folder: Path, model_file: Path) -> None:
    Path("nan.xyz").write_text("2\n\nO nan 0 0\nH 0 0 1\n")
    assert "nan.xyz: position of atom 0" in run.refused("relax", "nan.xyz", "--model", model_file)
    write("twice.xyz", [molecule("H2O"), Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.01]])])
    message = run.refused("relax", "twice.xyz", "--model", model_file)
    assert "twice.xyz@1: atoms" in message
    assert "0.0100 Å apart" in message
    Path("flat.xyz").write_text('1\nLattice="3 0 0 0 3 0 3 3 0" pbc="T T T"\nSi 0 0 0\n')
    message = run.refused("relax", "flat.xyz", "--model", model_file)
    assert "flat.xyz: " in message
    assert "no volume" in message


def test_atoms_on_top_of_each_other_are_named(run, folder: Path, model_file: Path) -> None:
    close = molecule("CH4")
    close.positions[3] = close.positions[1] + [0.2, 0.0, 0.2]
    write("close.xyz", [molecule("CH4"), close])
    message = run.refused("relax", "close.xyz", "--model", model_file)
    assert "close.xyz@1: atoms 1 (H) and 3 (H) are 0.2828 Å apart at the start" in message


def test_bad_models(run, folder: Path, model_file: Path) -> None:
    assert "'nonsense' is neither a file nor one of default" in run.refused(
        "relax", "water.xyz", "--model", "nonsense"
    )
    assert "missing.safetensors" in run.refused("relax", "water.xyz", "--model", "missing.safetensors")
    Path("foreign.safetensors").write_bytes(b"not a model at all")
    assert "is not a polyad model" in run.refused("relax", "water.xyz", "--model", "foreign.safetensors")
    Path("cut.safetensors").write_bytes(model_file.read_bytes()[:-100])
    assert "is truncated" in run.refused("relax", "water.xyz", "--model", "cut.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cell",), "water.xyz: the cell is to be relaxed, but the structure is not periodic"),
        (("--pressure", "2"), "a pressure of 2.0 GPa acts on the cell, which is kept: relax the cell too"),
        (("--fmax", "-1"), "`fmax` is -1.0 but must be a positive force"),
        (("--steps", "-1"), "`steps` is -1 but must be 0 or more"),
        (
            ("--optimizer", "newton"),
            '`optimizer` is "newton" but must be one of: auto, internal, bfgs, lbfgs',
        ),
        (("--dtype", "float16"), '`dtype` is "float16" but must be one of float64, float32'),
        (("--device", "abacus"), '`device` is "abacus" but must be'),
        (("--out", "missing/a.xyz"), "missing does not exist: create it first"),
        (("--out", "water.xyz"), "water.xyz: is an input, which is never overwritten"),
        (("--out", "./water.xyz"), "water.xyz: is an input, which is never overwritten"),
        (("--out", "water.pdf"), "water.pdf: no structure format ends like this"),
        (("--trajectory", "missing/a.traj"), "missing does not exist: create it first"),
        (("--trajectory", "water.xyz"), "water.xyz: is an input, which is never overwritten"),
        (("--trajectory", "a.pdf"), "the trajectory a.pdf has an unknown ending"),
    ],
)
def test_bad_options(run, folder: Path, model_file: Path, options: tuple[str, ...], message: str) -> None:
    assert message in run.refused("relax", "water.xyz", "--model", model_file, *options)
    assert not Path("water-relaxed.xyz").exists()


def test_options_that_do_not_fit_several_structures(run, folder: Path, model_file: Path) -> None:
    model = ("--model", model_file)
    assert "there are 2" in run.refused("relax", "two.xyz", "--trajectory", "a.traj", *model)
    assert "given twice" in run.refused("relax", "water.xyz", "water.xyz", *model)
    assert "the format vasp holds one structure" in run.refused("relax", "two.xyz", "--out", "a.vasp", *model)
    write("water.extxyz", molecule("H2O"))
    assert "written to the same file" in run.refused("relax", "water.xyz", "water.extxyz", *model)
    write("water-relaxed.xyz", molecule("H2O"))
    assert "is an input" in run.refused("relax", "water.xyz", "water-relaxed.xyz", *model)


def test_folder_without_permission(run, folder: Path, model_file: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "cannot be written to" in run.refused("relax", "water.xyz", "--model", model_file)


def test_usage_errors(run, folder: Path) -> None:
    assert run("relax").exit_code == 2
    assert run("relax", "water.xyz", "--steps", "many").exit_code == 2
    assert run("relax", "water.xyz", "--no-such-option").exit_code == 2
