"""`mlip vibrations`: what it writes, says and returns, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read, write

from mlip.calculators import BatchCalculator, MLIPCalculator, OutsideDomainWarning
from mlip.errors import InputError
from mlip.search.vibrations import vibrations


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_molecule(run, folder: Path, model_file: Path) -> None:
    before = Path("water.xyz").read_bytes()
    result = run("vibrations", "water.xyz", "--relax", "--model", model_file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("water.xyz: H2O, minimum, no imaginary frequency\nrelaxed in ")
    assert "3 translations and 3 rotations projected out" in result.stdout
    assert (
        "ideal gas at 298.15 K and 1 bar, symmetry number 2 (C2v within 0.1 Å), multiplicity 1"
        in result.stdout
    )
    assert "quasi-RRHO" in result.stdout
    assert Path("water.xyz").read_bytes() == before
    assert names(folder) == {
        "water.xyz", "two.xyz", "silicon.cif", "water-relaxed.xyz", "water-modes.xyz", "water-spectrum.png"
    }  # fmt: skip
    assert Path("water-spectrum.png").read_bytes().startswith(b"\x89PNG")


def test_json_holds_what_the_library_gives(run, folder: Path, model_file: Path) -> None:
    options = ("--model", model_file, "--json", "--temperature", 400, "--pressure", 2, "--symmetry", 1)
    result = run("vibrations", "water.xyz", "--relax", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert (report["command"], report["kind"], report["formula"]) == ("vibrations", "molecule", "H2O")
    assert (report["translations"], report["rotations"], report["imaginary"]) == (3, 3, 0)
    assert report["hessian_method"] == "autograd"
    other = run("vibrations", "water-relaxed.xyz", "--hessian", "finite-difference", "--fmax", 0.1, *options)
    again = json.loads(other.stdout)
    assert again["hessian_method"] == "finite-difference"
    np.testing.assert_allclose(again["frequencies_per_cm"], report["frequencies_per_cm"], atol=0.5)
    thermo = report["thermochemistry"]
    assert (thermo["temperature_K"], thermo["pressure_bar"]) == (400.0, 2.0)
    assert (thermo["symmetry_number"], thermo["point_group"]) == (1, "C2v")
    surface = BatchCalculator(model_file)
    expected = vibrations(read("water-relaxed.xyz"), surface)
    np.testing.assert_allclose(report["frequencies_per_cm"], expected.modes.frequencies, atol=0.1)
    frames = read("water-modes.xyz", index=":")
    assert len(frames) == 3 * 20
    assert {frame.info["mode"] for frame in frames} == {1, 2, 3}
    farthest = np.linalg.norm(frames[5].positions - frames[0].positions, axis=1).max()
    assert farthest == pytest.approx(0.3, abs=1e-4)
    assert str(frames[0].info["frequency"]) == f"{report['frequencies_per_cm'][0]:.1f}"


def test_a_structure_that_is_not_at_rest_is_refused(run, folder: Path, model_file: Path) -> None:
    message = run.refused("vibrations", "water.xyz", "--model", model_file)
    assert message.startswith("error: water.xyz: not at rest: the largest force is ")
    assert "above --fmax 0.01" in message
    assert "relax first (--relax)" in message
    assert names(folder) == {"water.xyz", "two.xyz", "silicon.cif"}
    loose = run("vibrations", "water.xyz", "--model", model_file, "--fmax", 1000, "--out", "loose")
    assert loose.exit_code == 0
    assert {"loose-modes.xyz", "loose-spectrum.png"} <= names(folder)


def test_unknown_surroundings_are_said(run, folder: Path, wary_model_file: Path) -> None:
    for structure, said in (
        ("water.xyz", "surroundings unlike any"),
        ("silicon.cif", "Si8 is periodic, but"),
    ):
        with pytest.warns(OutsideDomainWarning, match=said):
            run("vibrations", structure, "--model", wary_model_file)
    with pytest.warns(OutsideDomainWarning):
        result = run("vibrations", "water.xyz", "--model", wary_model_file, "--fmax", 1000, "--json")
    (here,) = BatchCalculator(wary_model_file).evaluate([read("water.xyz")])
    assert json.loads(result.stdout)["novelty"] == pytest.approx(here.novelty.max())


def test_too_few_steps_are_said_and_what_was_reached_is_written(run, folder: Path, model_file: Path) -> None:
    options = ("--model", model_file, "--relax", "--steps", 1, "--fmax", 1e-8, "--json")
    result = run("vibrations", "water.xyz", *options)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["converged"] is False
    assert "water.xyz: vibrations were not computed" in result.stderr
    assert names(folder) - {"water.xyz", "two.xyz", "silicon.cif"} == {"water-relaxed.xyz"}
    crystal = run("vibrations", "silicon.cif", *options)
    assert crystal.exit_code == 3
    assert "silicon.cif: phonons were not computed" in crystal.stderr
    assert Path("silicon-relaxed.cif").exists()


def test_an_atom_has_thermochemistry_and_no_modes(run, folder: Path, model_file: Path) -> None:
    write("atom.xyz", Atoms("H", positions=[[1, 2, 3]]))
    result = run("vibrations", "atom.xyz", "--model", model_file, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["frequencies_per_cm"] == report["files"] == []
    thermo = report["thermochemistry"]
    assert (thermo["geometry"], thermo["multiplicity"]) == ("monatomic", 2)
    assert thermo["entropy_eV_per_K"] / 1.0364269574711572e-05 == pytest.approx(114.716, abs=0.02)  # JANAF


def test_charge_and_multiplicity_reach_a_calculator_and_the_files(run, folder: Path) -> None:
    pytest.importorskip("tblite")
    oxygen = molecule("O2")
    oxygen.set_initial_magnetic_moments(None)
    write("o2.xyz", oxygen)
    known = {1: -215.1537, 3: -215.0820}
    for spin, energy in known.items():
        given = ("o2.xyz", "--relax", "--calculator", "tblite", "--multiplicity", spin, "--json")
        report = json.loads(run("vibrations", *given).stdout)
        assert report["energy_eV"] == pytest.approx(energy, abs=1e-3)
        assert report["thermochemistry"]["multiplicity"] == spin
    assert {frame.info["spin"] for frame in read("o2-modes.xyz", ":")} == {3}
    assert read("o2-relaxed.xyz").info["spin"] == 3
    hydroxide = molecule("OH")
    hydroxide.set_initial_magnetic_moments(None)
    hydroxide.info["charge"] = -1
    write("oh.xyz", hydroxide)
    report = json.loads(run("vibrations", "oh.xyz", "--relax", "--calculator", "tblite", "--json").stdout)
    assert report["thermochemistry"]["multiplicity"] == 1
    assert {frame.info["charge"] for frame in read("oh-modes.xyz", ":")} == {-1}


def test_a_model_cannot_be_told_the_multiplicity(run, folder: Path, model_file: Path) -> None:
    with pytest.warns(UserWarning, match="the model takes no account of the multiplicity, 3"):
        result = run("vibrations", "water.xyz", "--relax", "--model", model_file, "--multiplicity", 3)
    assert "multiplicity 3" in result.stdout


def test_fixed_atoms_make_oscillators(run, folder: Path, model_file: Path) -> None:
    water = molecule("H2O", vacuum=3.0)
    water.set_constraint(FixAtoms([0]))
    write("held.xyz", water)
    result = run("vibrations", "held.xyz", "--model", model_file, "--relax", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["kind"], report["rotations"], len(report["frequencies_per_cm"])) == ("bound", 3, 3)
    assert report["thermochemistry"]["free_energy_eV"] < report["energy_eV"] + report["zero_point_energy_eV"]
    assert "--pressure is for free molecules" in run.refused(
        "vibrations", "held.xyz", "--model", model_file, "--pressure", 1
    )


@pytest.fixture
def crystal(folder: Path) -> Path:
    write("diamond.cif", bulk("C", a=3.6))
    return Path("diamond.cif")


def test_crystal(run, folder: Path, crystal: Path, model_file: Path) -> None:
    pytest.importorskip("phonopy", reason="the phonons extra is not installed")
    options = ("--model", model_file, "--supercell", "2 2 2", "--dos-mesh", "6x6x6", "--elastic")
    result = run("vibrations", crystal, "--relax", *options, "--json")
    assert result.exit_code in (0, 3), result.stderr  # random weights need not have a stable crystal
    report = json.loads(result.stdout)
    assert (report["kind"], report["primitive_atoms"], report["supercell_atoms"]) == ("crystal", 2, 16)
    assert report["relaxation"]["converged"] is True
    assert report["pressure_GPa"] == pytest.approx(0.0, abs=0.5)
    assert report["density_of_states"]["mesh"] == [6, 6, 6]
    assert 298.15 in report["thermal_per_primitive_cell"]["temperatures_K"]
    assert np.shape(report["bands"][0]["frequencies_per_cm"])[1] == 6
    whole = report["stable"] and report["elastic"] is not None
    assert (result.exit_code == 0) == report["converged"] == whole
    if report["elastic"] is not None:
        assert np.shape(report["elastic"]["stiffness_GPa"]) == (6, 6)
    assert {"diamond-phonons.png", "diamond-phonopy.yaml", "diamond-relaxed.cif"} <= names(folder)
    plain = run("vibrations", "diamond-relaxed.cif", "--fmax", 0.1, "--out", "again", *options)
    assert plain.exit_code in (0, 3), plain.stderr
    assert "primitive cell C2" in plain.stdout
    assert "at 298.15 K, for each atom: heat capacity" in plain.stdout


def test_an_unstable_crystal_is_no_minimum(
    run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("phonopy", reason="the phonons extra is not installed")
    write("cube.cif", bulk("C", "sc", a=2.0))
    options = ("--model", model_file, "--supercell", "2 2 2", "--dos-mesh", "4 4 4", "--json")
    relaxed = run("vibrations", "cube.cif", "--relax", *options)
    assert relaxed.exit_code == 3
    report = json.loads(relaxed.stdout)
    assert (report["stable"], report["converged"], report["relaxation"]["converged"]) == (False, False, True)
    assert "cube.cif: not a minimum: phonons down to " in relaxed.stderr
    as_it_is = run("vibrations", "cube-relaxed.cif", *options)
    assert as_it_is.exit_code == 0, as_it_is.stderr
    report = json.loads(as_it_is.stdout)
    assert (report["stable"], report["converged"]) == (False, True)

    def none(*arguments, **options) -> None:
        raise InputError("strains end here")

    monkeypatch.setattr("mlip.cli.vibrations_of_crystals.elastic_constants", none)
    without = run("vibrations", "cube-relaxed.cif", "--elastic", *options)
    assert without.exit_code == 3
    assert json.loads(without.stdout)["converged"] is False
    assert without.stderr == "cube-relaxed.cif: no elastic constants: strains end here\n"


def test_a_relaxation_that_runs_away_is_said(
    run, folder: Path, crystal: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("phonopy", reason="the phonons extra is not installed")
    calculate, start = MLIPCalculator.calculate, read(crystal)

    def runaway(self, atoms, properties, system_changes) -> None:
        if abs(atoms.cell.volume - start.cell.volume) > 1e-6:
            raise InputError("the model ends here")
        calculate(self, atoms, properties, system_changes)

    monkeypatch.setattr(MLIPCalculator, "calculate", runaway)
    result = run("vibrations", crystal, "--relax", "--fmax", 1e-4, "--model", model_file)
    assert result.exit_code == 3, result.stderr
    assert "phonons were not computed, as the relaxation ran away in step " in result.stderr
    assert Path("diamond-relaxed.cif").exists()


def test_a_poscar_under_another_name(run, folder: Path, model_file: Path) -> None:
    pytest.importorskip("phonopy", reason="the phonons extra is not installed")
    for name in ("POSCAR", "POSCAR.1"):
        write(name, bulk("C", a=3.6), format="vasp")
        options = ("--relax", "--model", model_file, "--steps", 0, "--fmax", 1e-9)
        assert run("vibrations", name, *options, "--out", f"of-{name[7:]}").exit_code == 3
        assert len(read(f"of-{name[7:]}-relaxed.vasp")) == 2
        assert run("vibrations", name, *options).exit_code == 3
    assert {"POSCAR-relaxed", "POSCAR-relaxed.1"} <= names(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two.xyz"], "two.xyz: holds 2 structures, but vibrations are of one"),
        (["nowhere.xyz"], "nowhere.xyz: no such file or directory"),
        (["water.xyz", "--supercell", "2 2 2"], "is for crystals, but the structure is a free molecule"),
        (["water.xyz", "--elastic"], "--elastic is for crystals"),
        (["silicon.cif", "--symmetry", 2], "is for free molecules, but the structure is a crystal"),
        (["silicon.cif", "--supercell", "2 2"], '--supercell is "2 2" but must be three whole numbers'),
        (["silicon.cif", "--dos-mesh", "a b c"], '--dos-mesh is "a b c" but must be three whole numbers'),
        (["silicon.cif", "--temperature", 0], "--temperature is 0 but must be positive, K"),
        (["water.xyz", "--temperature", -1], "`temperature` is -1.0 but must be positive, K"),
        (["water.xyz", "--multiplicity", 2], "`multiplicity` is 2, which H2O with 10 electrons cannot have"),
        (["water.xyz", "--symmetry", 0], "`symmetry` is 0 but must be a symmetry number"),
        (["water.xyz", "--fmax", -1], "`fmax` is -1.0"),
        (["water.xyz", "--out", "nowhere/water"], "does not exist: create it first"),
        (["water.xyz", "--out", "."], "--out . is a folder, but must be how the names of the files begin"),
        (["water.xyz", "--out", ".."], "--out .. is a folder, but"),
        (["water.xyz", "--calculator", "gaussian"], '`calculator` is "gaussian" but must be one of: tblite'),
        (["water.xyz", "--calculator", "tblite", "--model", "m"], "only one can compute energies"),
        (["water.xyz", "--hessian", "guess"], '--hessian is "guess" but must be one of: direct, autograd'),
        (["water.xyz", "--calculator", "tblite", "--hessian", "direct"], "--hessian is for models"),
        (["water.xyz", "--hessian", "direct", "--fmax", 1000], "no head for direct Hessians"),
        (["silicon.cif", "--hessian", "autograd"], "--hessian is for molecules: phonons come from"),
        (["gold.xyz", "--relax"], "gold.xyz: "),
    ],
)  # fmt: skip
def test_what_is_refused(run, folder: Path, model_file: Path, arguments: list, message: str) -> None:
    write("gold.xyz", Atoms("Au2", positions=[[0, 0, 0], [0, 0, 2.5]]))
    chosen = [] if "--calculator" in arguments else ["--model", model_file]
    assert message in run.refused("vibrations", *arguments, *chosen)
    assert names(folder) == {"water.xyz", "two.xyz", "silicon.cif", "gold.xyz"}


def test_inputs_are_never_overwritten(run, folder: Path, model_file: Path) -> None:
    write("a-relaxed.xyz", molecule("H2O"))
    message = run.refused("vibrations", "a-relaxed.xyz", "--relax", "--model", model_file, "--out", "a")
    assert "is an input, which is never overwritten" in message


def test_without_phonopy_the_extra_is_named(
    run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "phonopy", None)
    message = run.refused("vibrations", "silicon.cif", "--model", model_file)
    assert 'pip install "polyad[phonons]"' in message
