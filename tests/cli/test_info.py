"""`mlip info`."""

from __future__ import annotations

import json
from pathlib import Path

from mlip.checkpoint import load_potential


def test_facts(run, model_file: Path) -> None:
    result = run("info", model_file, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["command"] == "info"
    assert facts["file"] == str(model_file)
    assert facts["bytes"] == model_file.stat().st_size
    assert facts["species"] == ["H", "C", "O", "Si"]
    assert facts["e0s"] == {"H": -1.0, "C": -6.0, "O": -8.0, "Si": -14.0}
    assert facts["cutoff"] == 4.0
    assert facts["model"] == "polyad"
    assert facts["config"]["num_channels"] == 4
    assert facts["level_of_theory"] == "none"
    assert facts["license"] == "MIT"
    assert facts["metrics"] == {"mae": 1.5}
    weights = load_potential(model_file).parameters()
    assert facts["num_parameters"] == sum(weight.numel() for weight in weights)


def test_text(run, model_file: Path) -> None:
    lines = run("info", model_file).stdout.splitlines()
    assert "species: H, C, O, Si" in lines
    assert "cutoff: 4.0" in lines
    assert "  mae: 1.5" in lines
    assert "license: MIT" in lines


def test_errors_are_a_table(run) -> None:
    result = run("info", "default")
    assert result.exit_code == 0, result.stderr
    assert "errors (by element too with --json):" in result.stdout
    header = next(line for line in result.stdout.splitlines() if "F RMSE" in line)
    assert "E/atom RMSE" in header
    assert "forces_rmse_H" not in result.stdout


def test_weights_are_not_loaded(run, model_file: Path, monkeypatch) -> None:
    monkeypatch.setattr("safetensors.torch.load_file", None)
    assert run("info", model_file).exit_code == 0


def test_refusals(run, model_file: Path, tmp_path: Path) -> None:
    assert "is neither a file nor one of default" in run.refused("info", "nonsense")
    assert "is neither a file nor" in run.refused("info", tmp_path / "missing.safetensors")
    assert "is neither a file nor" in run.refused("info", tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    for content in (
        b"",
        b"short",
        b"no model but longer than eight bytes",
        (2).to_bytes(8, "little") + b"{}",
    ):
        foreign.write_bytes(content)
        assert "is not a polyad model" in run.refused("info", foreign)
    foreign.write_bytes(model_file.read_bytes()[:-1])
    assert "is truncated" in run.refused("info", foreign)
