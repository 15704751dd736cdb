"""`mlip doctor`: a report whatever is broken."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

import mlip.kernels
from mlip import checkpoint


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    """A bundled model, and kernels that pass."""
    monkeypatch.setattr(checkpoint, "_BUNDLED_FOLDER", model_file.parent)
    monkeypatch.setattr(checkpoint, "BUNDLED", {"default": model_file.name})
    monkeypatch.setattr(mlip.kernels, "self_test", lambda: {"backend": "avx2"}, raising=False)


def test_everything_works(run, healthy) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["ok"] is True
    assert report["packages"]["torch"] == torch.__version__
    assert report["packages"]["polyad"]
    assert report["threads"]["torch"] == torch.get_num_threads()
    assert report["kernels"] == {"ok": True, "backend": "avx2"}
    assert report["bundled model"]["ok"] is True
    assert report["bundled model"]["largest force error, eV/A"] < 1e-5
    text = run("doctor")
    assert text.exit_code == 0
    assert text.stdout.endswith("everything works\n")
    assert f"  torch: {torch.__version__}" in text.stdout


def test_no_warning_about_the_molecule_of_the_test(run, healthy, monkeypatch, wary_model_file: Path) -> None:
    """It is made up, so that a model need not know it; a warning there would only alarm."""
    monkeypatch.setattr(checkpoint, "BUNDLED", {"default": wary_model_file.name})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json.loads(run("doctor", "--json").stdout)["bundled model"]["ok"] is True


def test_a_kernel_that_is_wrong(run, healthy, monkeypatch) -> None:
    def self_test() -> dict:
        raise RuntimeError("message: C++ gives 1.5, reference 1.0")

    monkeypatch.setattr(mlip.kernels, "self_test", self_test)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["kernels"]["error"] == "RuntimeError: message: C++ gives 1.5, reference 1.0"
    assert report["bundled model"]["ok"] is True
    assert "FAILED: kernels" in run("doctor").stdout
    monkeypatch.setattr(mlip.kernels, "self_test", lambda: {"ok": False})
    assert run("doctor").exit_code == 1


def test_a_bundled_model_that_is_missing_or_wrong(run, healthy, monkeypatch, tmp_path: Path) -> None:
    from mlip.potential import Potential

    forces = Potential._forces
    wrong = staticmethod(lambda graph, gradient: 1.01 * forces(graph, gradient))
    monkeypatch.setattr(Potential, "_forces", wrong)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert "differ from finite differences" in json.loads(result.stdout)["bundled model"]["error"]
    monkeypatch.setattr(checkpoint, "_BUNDLED_FOLDER", tmp_path)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert "missing from this installation" in json.loads(result.stdout)["bundled model"]["error"]


def test_usage_error(run) -> None:
    assert run("doctor", "--nonsense").exit_code == 2
