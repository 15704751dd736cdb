"""`mlip train` and `mlip evaluate`: messages, exit codes; kills and torchrun in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase.io import read
from typer.testing import CliRunner, Result

from mlip.training.config_file import load_config
from mlip.training.run import run_training


def mlip(*arguments: object) -> Result:
    from mlip.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="mlip")


def refused(*arguments: object) -> str:
    """Last line of stderr of a command that must end as bad input."""
    result = mlip(*arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def wait_for(text: str, running: subprocess.Popen[str]) -> None:
    """Read stderr until a line holds `text`."""
    assert running.stderr is not None
    seen = []
    for line in running.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def test_kill_and_interrupt_lose_nothing(
    tmp_path: Path, process, config_file: Path, state_differences
) -> None:
    long = ("train", config_file, "max_epochs=60")
    running = process.start(*long)
    wait_for("epoch 5/60", running)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    epoch = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state"]["epoch"]
    assert 4 <= epoch < 60

    running = process.start(*long, "--resume")
    wait_for(f"epoch {epoch + 3}/60", running)
    os.kill(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGINT
    assert "Traceback" not in text
    assert f"go on with: mlip train {config_file} max_epochs=60 --resume" in text

    result = process.run(*long, "--resume")
    assert result.returncode == 0, result.stderr
    assert "resuming after epoch" in result.stderr
    whole = process.run(*long, f"output={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    assert state_differences(tmp_path / "whole", tmp_path / "run") == []


def test_two_processes_learn_what_one_does(
    tmp_path: Path, process, config_file: Path, state_differences
) -> None:
    one = run_training(load_config(config_file, [f"output={tmp_path / 'one'}"]))
    two = process.run("train", config_file, f"output={tmp_path / 'two'}", processes=2)
    assert two.returncode == 0, two.stderr
    weights = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state"]["potential"]
        for name in ("one", "two")
    ]
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], rtol=1e-9, atol=1e-11), key
    report = json.loads((tmp_path / "two" / "report" / "metrics.json").read_text())
    assert report["metrics"]["valid"] == pytest.approx(one.metrics["valid"], rel=1e-8)

    parts = (config_file, f"output={tmp_path / 'parts'}")
    first = process.run("train", *parts, "stop_after=1", processes=2)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("go on with") == 1
    second = process.run("train", *parts, "--resume", processes=2)
    assert second.returncode == 0, second.stderr
    assert state_differences(tmp_path / "two", tmp_path / "parts") == []


def test_train_stops_and_resumes(tmp_path: Path, config_file: Path) -> None:
    stopped = mlip("train", config_file, "stop_after=1")
    assert stopped.exit_code == 0, stopped.stderr
    assert f"stopped: 1 of 3 epochs done; go on with: mlip train {config_file} --resume" in stopped.stderr
    resumed = mlip("train", config_file, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "resuming after epoch 1" in resumed.stderr
    assert (tmp_path / "run" / "report" / "metrics.json").is_file()
    assert stopped.stdout == resumed.stdout == ""


def test_train_refusals(tmp_path: Path, config_file: Path, settings: dict[str, Any]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(settings | {"bach_size": 3}))
    assert "none.yaml' does not exist" in refused("train", tmp_path / "none.yaml")
    assert "unknown key `bach_size`; did you mean `batch_size`?" in refused("train", broken)
    assert "nothing to resume" in refused("train", config_file, "--resume")
    assert "must look like key=value" in refused("train", config_file, "fast")
    assert "data file" in refused("train", config_file, "data.train=none.xyz")


def test_evaluate(tmp_path: Path, config_file: Path, data_file: Path) -> None:
    trained = mlip("train", config_file, f"data.test={data_file}", "max_epochs=2")
    assert trained.exit_code == 0, trained.stderr
    model, out, plots = tmp_path / "run" / "model.safetensors", tmp_path / "out.xyz", tmp_path / "plots"
    given = ("evaluate", "--model", model, "--data", data_file)
    result = mlip(*given, "--json", "--batch-size", 4, "--out", out, "--plot", plots)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    expected = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())["metrics"]["frames"]
    assert found["frames"] == 23
    assert found["metrics"] == pytest.approx(expected, rel=1e-9)
    images = read(out, ":")
    mean = sum((a.info["mlip_energy"] - a.info["REF_energy"]) ** 2 for a in images) / 23
    assert mean**0.5 == pytest.approx(expected["energy_rmse"], rel=1e-6)
    assert images[0].arrays["mlip_forces"].shape == (3, 3)
    assert {p.name for p in plots.iterdir()} == {"parity_energy.png", "parity_forces.png"}

    text = mlip(*given).stdout
    assert "frames.xyz (23)" in text
    assert "force RMSE by element, meV/Å: H" in text

    bare, strange = tmp_path / "bare.xyz", tmp_path / "strange.xyz"
    bare.write_text("1\n\nH 0 0 0\n")
    strange.write_text("1\nenergy=-1\nC 0 0 0\n")
    use = ("evaluate", "--model", model, "--data")
    assert "is neither a file nor one of" in refused("evaluate", "--model", "none", "--data", data_file)
    assert "none.xyz: no such file" in refused(*use, tmp_path / "none.xyz")
    assert "no frame has an energy or forces to compare with" in refused(*use, bare)
    assert "frame 0 contains C, but the model only knows H, O" in refused(*use, strange)
    assert "must be float64 or float32" in refused(*use, data_file, "--dtype", "half")
    assert "no frame has the energy key `dft`" in refused(*use, data_file, "--energy-key", "dft")
