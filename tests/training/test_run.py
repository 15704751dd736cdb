"""Whole runs in this process."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import read

from mlip.checkpoint import load_potential, read_header
from mlip.datasets.write import write_frames
from mlip.errors import InputError
from mlip.training.config_file import parse_config
from mlip.training.logs import CsvLog
from mlip.training.module import TrainingModule
from mlip.training.run import TrainingResult, run_training


def train(settings: dict[str, Any], *, resume: bool = False, **changes: Any) -> TrainingResult:
    return run_training(parse_config({**settings, **changes}, "settings"), resume=resume)


def test_a_run_learns_and_leaves_everything(
    settings: dict[str, Any], data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings["data"]["test"] = {"again": str(data_file)}
    settings["model"] |= {"num_channels": 8, "lmax_hidden": 1}
    result = train(settings, max_epochs=25, optimizer={"lr": 0.02}, plots=True, tensorboard=True)
    folder = Path(settings["output"])
    names = {p.name for p in folder.iterdir()}
    assert names == {"config.yaml", "last.ckpt", "log.csv", "model.safetensors", "report", "tensorboard"}
    report = {p.name for p in (folder / "report").iterdir()}
    assert report == {"metrics.json", "parity_energy.png", "parity_forces.png", "learning_curves.png"}
    rows = CsvLog(folder / "log.csv").read()
    assert [row["epoch"] for row in rows] == list(range(1, 26))
    assert rows[-1]["valid_forces_rmse"] < 0.4 * rows[0]["valid_forces_rmse"]
    metrics = json.loads((folder / "report" / "metrics.json").read_text())["metrics"]
    assert set(metrics) == {"train", "valid", "again"} == set(result.metrics)
    assert (result.finished, result.epoch, result.reason) == (True, 25, "")
    text = capsys.readouterr().err
    assert "energy: 23 of 23 frames, read from" in text
    assert "F RMSE" in text
    assert "Lightning" not in text


def test_the_saved_model_is_the_one_of_the_metrics(settings: dict[str, Any], data_file: Path) -> None:
    settings["data"]["test"] = str(data_file)
    result = train(settings, metadata={"level_of_theory": "springs"})
    assert result.model is not None
    best = min(CsvLog(result.model.parent / "log.csv").read(), key=lambda row: row["valid_loss"])
    assert result.metrics["valid"]["forces_rmse"] == pytest.approx(best["valid_forces_rmse"], rel=1e-6)
    header = read_header(result.model)
    assert header["level_of_theory"] == "springs"
    assert header["data_hash"].startswith("sha256:")
    assert header["metrics"]["frames"] == result.metrics["frames"]
    assert header["species"] == [1, 8]
    potential = load_potential(result.model)
    assert potential.dtype == torch.float64
    from mlip.neighbors import build_graph

    errors = []
    for atoms in read(data_file, ":"):
        out = potential(build_graph(atoms, potential.cutoff))
        errors.append(out["energy"].item() - atoms.info["REF_energy"])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(
        result.metrics["frames"]["energy_rmse"], rel=1e-9
    )


def test_normalisation_reaches_the_model(settings: dict[str, Any]) -> None:
    result = train(settings, max_epochs=1, e0s={"H": -13.5, "O": -430.0})
    assert result.model is not None
    header = read_header(result.model)
    assert header["e0s"] == {"1": -13.5, "8": -430.0}
    assert 1.0 < header["config"]["avg_num_neighbors"] < 2.0
    assert header["config"]["energy_scale"] > 0.1
    assert header["cutoff"] == 3.0


@pytest.mark.parametrize(("stop", "optimizer"), [(1, "adamw"), (2, "adamw"), (1, "muon")])
def test_resume_is_exact(
    settings: dict[str, Any], tmp_path: Path, state_differences, stop: int, optimizer: str
) -> None:
    settings = settings | {"optimizer": {"name": optimizer}}
    train(settings, output=str(tmp_path / "whole"))
    first = train(settings, stop_after=stop)
    assert (first.finished, first.reason, first.epoch, first.metrics) == (False, "stop_after", stop, {})
    second = train(settings, resume=True)
    assert (second.finished, second.epoch) == (True, 3)
    assert state_differences(tmp_path / "whole", tmp_path / "run") == []
    logs = [CsvLog(tmp_path / name / "log.csv").read() for name in ("whole", "run")]
    for rows in logs:
        for row in rows:
            del row["seconds"]
    assert logs[0] == logs[1]
    models = [load_potential(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "run")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_resume_of_a_finished_run_only_reports(
    settings: dict[str, Any], state_differences, tmp_path: Path
) -> None:
    before = train(settings)
    state = (tmp_path / "run" / "last.ckpt").read_bytes()
    after = train(settings, resume=True)
    assert after.metrics == before.metrics
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "last.ckpt").write_bytes(state)
    assert state_differences(tmp_path / "old", tmp_path / "run") == []


def test_a_finished_run_goes_on(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    settings["optimizer"] = {"lr": 0.02}
    first = train(settings, max_epochs=1)
    assert (first.finished, first.epoch) == (True, 1)
    second = train(settings, max_epochs=15, resume=True)
    assert (second.finished, second.epoch) == (True, 15)
    assert "15 epochs instead of 1" in capsys.readouterr().err
    assert second.metrics["train"]["forces_rmse"] < first.metrics["train"]["forces_rmse"]
    shorter = train(settings, max_epochs=2, resume=True)
    assert (shorter.finished, shorter.epoch) == (True, 15)


def test_out_of_time_in_the_middle_of_an_epoch(
    settings: dict[str, Any], tmp_path: Path, state_differences
) -> None:
    train(settings, output=str(tmp_path / "whole"))
    result = train(settings, max_time=1e-9)
    assert (result.finished, result.reason, result.epoch) == (True, "max_time", 0)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state"]
    assert (state["epoch"], state["batches_done"]) == (0, 1)
    train(settings, resume=True)
    assert state_differences(tmp_path / "whole", tmp_path / "run") == []
    logs = [CsvLog(tmp_path / name / "log.csv").read() for name in ("whole", "run")]
    assert [row["train_forces_rmse"] for row in logs[0]] == [row["train_forces_rmse"] for row in logs[1]]


def test_early_stopping(settings: dict[str, Any]) -> None:
    result = train(settings, max_epochs=50, optimizer={"lr": 1e-30}, early_stopping={"patience": 2})
    assert (result.finished, result.reason) == (True, "early_stopping")
    assert result.epoch == 3


def test_patience_is_judged_at_validations(settings: dict[str, Any]) -> None:
    result = train(settings, max_epochs=9, valid_every=3, early_stopping={"patience": 2})
    assert result.epoch >= 6
    assert result.model is not None
    rows = CsvLog(Path(settings["output"]) / "log.csv").read()
    assert [row["epoch"] for row in rows if "valid_loss" in row] == [3, 6, 9][: result.epoch // 3]
    stuck = train(settings, max_epochs=50, valid_every=3, early_stopping={"patience": 2},
                  optimizer={"lr": 1e-30}, output=settings["output"] + "2")  # fmt: skip
    assert (stuck.finished, stuck.reason, stuck.epoch) == (True, "early_stopping", 6)


def test_out_of_time_before_a_validation(
    settings: dict[str, Any], tmp_path: Path, state_differences, capsys: pytest.CaptureFixture[str]
) -> None:
    settings |= {"valid_every": 3}
    train(settings, output=str(tmp_path / "whole"))
    capsys.readouterr()
    early = train(settings, max_time=1e-9)
    assert "stopped (max_time) without a model from a validated epoch: the weights of step 1 are" in (
        capsys.readouterr().err
    )
    assert early.model is not None
    header = read_header(early.model)
    assert header["metrics"]["valid"] == early.metrics["valid"]
    assert header["best_epoch"] == 0
    later = train(settings, max_time=1e-9, resume=True)  # not the model of before
    assert "the weights of step 2 are" in capsys.readouterr().err
    assert later.metrics["valid"] != early.metrics["valid"]
    whole = train(settings, resume=True)
    assert "stopped" not in capsys.readouterr().err
    assert state_differences(tmp_path / "whole", tmp_path / "run") == []
    assert whole.model is not None
    assert read_header(whole.model)["best_epoch"] == 3


def test_a_run_without_weights_worth_keeping_says_so(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingModule, "_selection_loss", lambda module, errors: math.inf)
    with pytest.raises(InputError, match=r"the loss became NaN or infinite near step 12 .*lower"):
        train(settings)


def test_an_older_run_keeps_its_split(settings: dict[str, Any], data_file: Path, frames) -> None:
    write_frames(data_file, [replace(f, group=f"g{i // 4}") for i, f in enumerate(frames)])
    older = settings | {"data": settings["data"] | {"split_by": "frame"}}
    first = train(older, stop_after=1)
    assert first.epoch == 1
    second = train(settings, resume=True)
    assert (second.finished, second.epoch) == (True, 3)


def test_e0s_are_read_under_the_key_of_the_energies(
    settings: dict[str, Any], tmp_path: Path, data_file: Path
) -> None:
    data_file.write_text(data_file.read_text().replace("REF_energy", "dft2_energy"))
    atoms = tmp_path / "atoms.xyz"
    atoms.write_text("1\nenergy=-1 dft2_energy=-13.5\nH 0 0 0\n1\nenergy=-2 dft2_energy=-430.0\nO 0 0 0\n")
    settings["data"]["keys"] = {"energy": "dft2_energy"}
    result = train(settings, max_epochs=1, e0s={"method": "isolated", "file": str(atoms)})
    assert result.model is not None
    assert read_header(result.model)["e0s"] == {"1": -13.5, "8": -430.0}


def test_stress_is_learned(settings: dict[str, Any], tmp_path: Path, crystals) -> None:
    path = tmp_path / "crystals.xyz"
    write_frames(path, crystals)
    settings["data"] = {"train": str(path), "valid": 2}
    result = train(settings, loss={"stress": 10.0}, plots=True, max_epochs=2)
    assert math.isfinite(result.metrics["valid"]["stress_rmse"])
    assert (tmp_path / "run" / "report" / "parity_stress.png").is_file()


def test_loss_weights_act(settings: dict[str, Any]) -> None:
    ours = train(settings, loss={"energy": 0.0, "forces": 1.0}, max_epochs=1)
    theirs = train(settings, loss={"energy": [[0, 0], [0.5, 50]], "forces": 1.0}, max_epochs=1,
                   output=settings["output"] + "2")  # fmt: skip
    assert ours.metrics["train"] != theirs.metrics["train"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "polyat"}, r"`model\.name` is 'polyat', which is not a model; did you mean `polyad`\?"),
        (
            {"model": {"name": "polyad", "num_chanels": 3}},
            r"unknown key `model\.num_chanels` .* `num_channels`\?",
        ),
        (
            {"model": {"name": "polyad", "cutoff": 3}},
            r"`model\.cutoff` cannot be set; use `cutoff` at the top",
        ),
        ({"model": {"name": "polyad", "num_channels": 0}}, r"section `model`: .*`num_channels` is 0"),
        ({"device": "abacus"}, r"`device` is 'abacus' but must be auto, cpu, cuda or cuda:N"),
        ({"device": "meta"}, r"`device` is 'meta' but training runs on cpu and cuda"),
        ({"e0s": {"H": -1.0}}, r"`e0s\.values` has no isolated-atom energy of O; add it"),
        ({"output": "/dev/null/run"}, r"`output` '/dev/null/run' cannot be made"),
    ],
)
def test_refusals(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(settings, **changes)


def test_output_and_resume_refusals(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(settings, resume=True)
    train(settings, stop_after=1)
    with pytest.raises(
        InputError, match="already holds a run; continue it with --resume, or set another `output`"
    ):
        train(settings)
    with pytest.raises(InputError, match=r"`seed` is 9 but the run was started with 0"):
        train(settings, resume=True, seed=9)


def test_changed_data_is_not_resumed(settings: dict[str, Any], data_file: Path) -> None:
    train(settings, stop_after=1)
    data_file.write_text(data_file.read_text().replace("REF_energy=-4", "REF_energy=-5"))
    with pytest.raises(InputError, match="the training frames are not those that the run was started with"):
        train(settings, resume=True)


def test_a_loss_that_explodes_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"the loss became NaN or infinite .*lower `optimizer\.lr` \(1e\+30\)"
    ):
        train(settings, optimizer={"lr": 1e30}, gradient_clip=None)


def test_unknown_element_in_a_test_set(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "strange.xyz"
    path.write_text("1\nREF_energy=-1 Properties=species:S:1:pos:R:3:REF_forces:R:3\nC 0 0 0 0 0 0\n")
    settings["data"]["test"] = str(path)
    with pytest.raises(InputError, match="strange: frame 0 contains C, but the training data only has H, O"):
        train(settings)
