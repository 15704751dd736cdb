"""`mlip data generate`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from mlip.datasets import H5Dataset
from mlip.datasets.generation.labelling import Particles

FEW = (
    "--conformers", 1, "--relaxation", 2, "--rattled", 1, "--stretched", 1, "--twisted", 0, "--thermal", 1,
    "--pushes", 0, "--shifts", 0, "--json",
)  # fmt: skip


def test_generates_and_goes_on(run: Any, folder: Path) -> None:
    Path("list.smi").write_text("# solvents\nO water\n\nOC methanol\n", encoding="utf-8")
    command = (
        "data",
        "generate",
        "list.smi",
        "two.xyz",
        "--out",
        "data",
        "--dimers",
        1,
        "--hessians",
        1,
        *FEW,
    )
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    part = report["parts"]["frames"]
    frames = H5Dataset(folder / "data" / "frames.h5")
    assert part["frames"] == len(frames)
    assert part["sources"] == part["hessians"] == 5
    names = {frames[k].molecule for k in range(len(frames))}
    assert {"O", "CO", "two.xyz:0", "two.xyz:1"} < names
    assert "seed 0" in report["source"]
    assert json.loads(run(*command).stdout) == report


def test_labels_of_a_model(model_file: Path) -> None:
    from mlip.calculators import MLIPCalculator
    from mlip.cli.calculator_choice import model_digest
    from mlip.cli.generate import _labels

    make_labeller, theory = _labels(str(model_file))
    assert theory == f"model small.safetensors ({model_digest(str(model_file))})"
    water = molecule("H2O")
    label = pickle.loads(pickle.dumps(make_labeller))(Particles(water.numbers))  # as it goes to a process
    energy, forces = label(water.positions)
    water.calc = MLIPCalculator(model_file)
    assert energy == pytest.approx(water.get_potential_energy())
    np.testing.assert_allclose(forces, water.get_forces())


def test_frames_of_a_model(run: Any, folder: Path, model_file: Path) -> None:
    """Elements of odd Z are no hindrance; a radical is, to a model that knows no spin."""
    Path("list.smi").write_text("O\n[CH3]\nC[N+](C)(C)C\n", encoding="utf-8")
    refused = run.refused("data", "generate", "list.smi", "--calculator", model_file, "--out", "data", *FEW)
    assert "element(s) N are unknown to this model" in refused
    assert not Path("data").exists()
    Path("list.smi").write_text("O\n[CH3]\n[OH-]\n", encoding="utf-8")
    result = run("data", "generate", "list.smi", "--calculator", model_file, "--out", "data", *FEW)
    assert result.exit_code == 0, result.stderr
    part = json.loads(result.stdout)["parts"]["frames"]
    assert part["sources"] == 1
    assert {H5Dataset("data/frames.h5")[k].molecule for k in range(part["frames"])} == {"O"}
    refusals = [why for why in part["discarded"] if why.startswith("whole source: ")]
    assert sorted(why.split(", but")[0].split("its ")[1] for why in refusals) == [
        "charge is -1",
        "spin (2S + 1) is 2",
    ]


def test_another_model_of_the_same_name(run: Any, folder: Path, model_file: Path) -> None:
    from mlip.checkpoint import load_potential, save_potential

    Path("list.smi").write_text("O\n", encoding="utf-8")
    command = ("data", "generate", "list.smi", "--calculator", "small.safetensors", "--out", "data", *FEW)
    potential = load_potential(model_file)
    save_potential(potential, folder / "small.safetensors")
    assert run(*command).exit_code == 0
    with torch.no_grad():
        next(potential.parameters()).mul_(1.1)
    save_potential(potential, folder / "small.safetensors")
    assert "holds a run with other level_of_theory" in run.refused(*command)


def test_charge_and_spin_of_structure_files(folder: Path) -> None:
    from mlip.cli.generate import _sources
    from mlip.datasets.generation.recipes import Amounts

    water = molecule("H2O")
    expected = {"plain": (0, 1), "keys": (-1, 3), "sums": (2, 5), "odd": (0, 2)}
    for name in expected:
        atoms = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]]) if name == "odd" else water.copy()
        if name == "keys":
            atoms.info |= {"total_charge": -1, "multiplicity": 3}
        if name == "sums":
            atoms.set_initial_charges([1.2, 0.4, 0.4])
            atoms.set_initial_magnetic_moments([2, 1, 1])
        write(f"{name}.xyz", atoms)
    files = [Path(f"{name}.xyz") for name in expected]
    sources = _sources(files, Amounts(), paths=False, dimers=0, seed=0)
    found = {s.name[:-4]: (s.structures[0]["charge"], s.structures[0]["spin"]) for s in sources}
    assert found == expected


def test_structure_files_of_one_name(folder: Path) -> None:
    from mlip.cli.generate import _sources
    from mlip.datasets.generation.recipes import Amounts

    for name in ("a", "b"):
        Path(name).mkdir()
        write(f"{name}/two.xyz", [molecule("H2O"), molecule("H2O")])
    files = [Path("a/two.xyz"), Path("b/two.xyz"), Path("water.xyz"), Path("water.xyz").absolute()]
    sources = _sources(files, Amounts(), paths=False, dimers=0, seed=0)
    names = ["a/two.xyz:0", "a/two.xyz:1", "b/two.xyz:0", "b/two.xyz:1", "water.xyz"]
    assert [s.name for s in sources] == [s.group for s in sources] == names
    sources = _sources(files[:2], Amounts(), paths=True, dimers=0, seed=0)
    assert [s.name for s in sources] == ["a/two.xyz", "b/two.xyz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["half.xyz"], "half.xyz: `charge` of the structure is"),
        (["bad.smi"], "bad.smi, line 2: 'CC(C)(C)(C)C' is not a SMILES"),
        (["heavy.smi"], "not Z = 92"),
        (["silicon.cif"], "structure 1 is periodic"),
        (["two.xyz", "--paths"], "reactant and product"),
        (["water.xyz", "--dimers", "2"], "no molecule is given as SMILES"),
        (["good.smi", "--dimers", "2"], "1 molecules make 1 pairs only"),
        (["water.xyz", "--test", "0.1"], "which needs SMILES"),
        (["good.smi", "--test", "0.7", "--valid", "0.3"], "must leave something to train on"),
        (["good.smi", "--test", "0.5"], "`--test` is 0.5, but none of 1 molecules falls to it"),
        (["empty.smi"], "no molecules"),
        (["missing.smi"], "no such file"),
        (["good.smi", "--calculator", "orca"], "orca"),
    ],
)
def test_what_cannot_be_used(run: Any, folder: Path, arguments: list[str], message: str) -> None:
    Path("bad.smi").write_text("O\nCC(C)(C)(C)C\n", encoding="utf-8")
    Path("heavy.smi").write_text("[U]\n", encoding="utf-8")
    Path("good.smi").write_text("O\n", encoding="utf-8")
    write("half.xyz", Atoms("H", info={"charge": 1.5}))
    Path("empty.smi").write_text("# nothing\n", encoding="utf-8")
    assert message in run.refused("data", "generate", *arguments, "--out", "data")
    assert not Path("data").exists()


def test_another_run_is_left_alone(run: Any, folder: Path) -> None:
    Path("a.smi").write_text("O\n", encoding="utf-8")
    assert run("data", "generate", "a.smi", "--out", "data", *FEW).exit_code == 0
    assert "other seed:" in run.refused("data", "generate", "a.smi", "--out", "data", "--seed", 5, *FEW)
    assert "other hessians:" in run.refused(
        "data", "generate", "a.smi", "--out", "data", "--hessians", 1, *FEW
    )
    Path("a.smi").write_text("O\nN\n", encoding="utf-8")
    assert "other molecules:" in run.refused("data", "generate", "a.smi", "--out", "data", *FEW)
