"""`mlip data generate`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

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
    from mlip.cli.generate import _labels

    make_labeller, theory = _labels(str(model_file))
    assert theory == "model small.safetensors"
    water = molecule("H2O")
    label = pickle.loads(pickle.dumps(make_labeller))(Particles(water.numbers))  # as it goes to a process
    energy, forces = label(water.positions)
    water.calc = MLIPCalculator(model_file)
    assert energy == pytest.approx(water.get_potential_energy())
    np.testing.assert_allclose(forces, water.get_forces())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
