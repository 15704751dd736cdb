"""Training with Hessians: labels, loss terms, errors, and whole runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spring_molecules import springs, water

from mlip.checkpoint import load_potential, read_header
from mlip.datasets import Frame
from mlip.datasets.write import write_frames
from mlip.errors import InputError
from mlip.neighbors import build_graph
from mlip.search.vibrations import normal_modes
from mlip.training.config import Loss
from mlip.training.config_file import load_config, parse_config
from mlip.training.hessians import LOW_MODES, clean, differences, labels_of
from mlip.training.logs import CsvLog
from mlip.training.loss import Labels, Weights, batch_loss
from mlip.training.packed import pack
from mlip.training.run import TrainingResult, run_training

HEAD = {"lmax": 2, "hessian_cutoff": 4.0, "hessian_channels": 3, "hessian_coordinates": 4, "hessian_width": 8}


def with_hessian(frame: Frame) -> Frame:
    """The frame with the second derivatives of its springs."""
    size, step = 3 * len(frame), 1e-4
    hessian = np.zeros((size, size))
    for row in range(size):
        for sign in (1, -1):
            positions = frame.positions.copy()
            positions.flat[row] += sign * step
            hessian[row] -= sign * springs(positions, frame.atomic_numbers)[1].ravel() / (2 * step)
    return dataclasses.replace(frame, hessian=0.5 * (hessian + hessian.T))


@pytest.fixture
def labelled(frames: list[Frame]) -> list[Frame]:
    """Every other frame has a Hessian."""
    return [with_hessian(frame) if i % 2 else frame for i, frame in enumerate(frames)]


@pytest.fixture
def run_settings(settings: dict[str, Any], labelled: list[Frame], tmp_path: Path) -> dict[str, Any]:
    """A model with a head, and frames of which half have a Hessian, in HDF5."""
    path = tmp_path / "labelled.h5"
    write_frames(path, labelled)
    settings["data"] = {"train": str(path), "valid": 4}
    settings["model"] |= HEAD
    return settings


def train(settings: dict[str, Any], *, resume: bool = False, **changes: Any) -> TrainingResult:
    return run_training(parse_config({**settings, **changes}, "settings"), resume=resume)


def test_labels_are_cleaned() -> None:
    frame = with_hessian(water(0))
    assert frame.hessian is not None
    noise = np.random.default_rng(0).normal(0, 0.1, (9, 9))
    cleaned = clean(frame.hessian + noise)
    np.testing.assert_allclose(cleaned, cleaned.T, atol=1e-14)
    np.testing.assert_allclose(cleaned.reshape(9, 3, 3).sum(axis=1), 0.0, atol=1e-13)
    np.testing.assert_allclose(clean(frame.hessian), frame.hessian, atol=1e-9)


def test_low_modes_are_the_lowest_vibrations() -> None:
    frame = with_hessian(water(0))
    assert frame.hessian is not None
    _, low = labels_of(frame)
    modes = normal_modes(frame.to_atoms(), frame.hessian).cartesian.reshape(-1, 9)
    assert low.shape == (9, LOW_MODES)
    assert len(modes) == 3
    for k, mode in enumerate(modes):
        assert abs(mode @ low[:, k]) == pytest.approx(1.0)
    assert not low[:, 3:].any()


def test_batches_carry_ragged_hessians(labelled: list[Frame]) -> None:
    data = pack(labelled, 3.0, dtype=torch.float64)
    chosen = np.array([5, 2, 0, 1, 7])
    hessians = data.batch(chosen, whole=np.arange(10)).hessians
    assert hessians.structures.tolist() == [0, 3, 4]
    assert hessians.num_in_step == 5
    for frame, matrix, modes in zip((5, 1, 7), hessians.matrices, hessians.low_modes, strict=True):
        expected, low = labels_of(labelled[frame])
        torch.testing.assert_close(matrix, torch.from_numpy(expected))
        torch.testing.assert_close(modes, torch.from_numpy(low))


def test_the_terms_of_the_loss(labelled: list[Frame]) -> None:
    data = pack(labelled, 3.0, dtype=torch.float64)
    batch = data.batch(np.array([0, 1, 2, 3]))
    counts = batch.graph.atoms_per_structure.tolist()
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(3 * n, 3 * n, generator=generator, dtype=torch.float64) for n in counts]
    v, product = torch.randn(2, sum(counts), 3, generator=generator, dtype=torch.float64)
    output = {
        "energy": batch.energy,
        "hessian": torch.cat([h.reshape(-1) for h in found]),
        "hessian_of": torch.arange(4),
        "displacement": v,
        "hvp": product,
    }
    errors = [found[s] - label for s, label in zip((1, 3), batch.hessians.matrices, strict=True)]
    expected = 2 * sum(e.abs().mean() for e in errors) / 2
    low = batch.hessians.low_modes
    expected += 3 * sum((e @ u).abs().mean() for e, u in zip(errors, low, strict=True)) / 2
    spans = [
        (a.reshape(-1), b.reshape(-1)) for a, b in zip(v.split(counts), product.split(counts), strict=True)
    ]
    expected += 5 * sum((found[s] @ spans[s][0] - spans[s][1]).abs().mean() for s in (0, 2)) / 2
    config = Loss(energy=0, forces=0, hessian=2, hessian_subspace=3, hvp=5)
    weights = Weights(energy=0, forces=0, stress=0, hessian=2, hessian_subspace=3, hvp=5)
    value = batch_loss(output, batch, weights, config, Labels.of(config))
    torch.testing.assert_close(value, expected)


def test_errors_of_modes() -> None:
    """Against frequencies of the search for vibrations, which has another code."""
    one, two = (with_hessian(water(seed)) for seed in (0, 3))
    assert one.hessian is not None
    assert two.hessian is not None
    atoms = one.to_atoms()
    first, second = normal_modes(atoms, one.hessian), normal_modes(atoms, two.hessian)
    hessian, eigenvalue, overlap, frequency, zpe = differences(atoms, one.hessian, two.hessian)
    assert hessian[0] == pytest.approx(np.abs(one.hessian - two.hessian).mean())
    assert frequency[0] == pytest.approx(np.abs(first.frequencies - second.frequencies).mean(), rel=1e-6)
    cosine = abs(np.sum(first.mass_weighted[0] * second.mass_weighted[0]))
    assert overlap[0] == pytest.approx(1 - cosine, abs=1e-9)
    quanta = 0.5 * 0.0001239841973964072 * (first.frequencies.sum() - second.frequencies.sum())
    assert zpe[1] == pytest.approx(quanta**2, rel=1e-6)
    scale = 521.4709**2
    difference = (first.frequencies[0] ** 2 - second.frequencies[0] ** 2) / scale
    assert eigenvalue[0] == pytest.approx(abs(difference), rel=1e-5)


def test_together_with_energy_and_forces(run_settings: dict[str, Any]) -> None:
    loss = {"forces": 10.0, "hessian": 1.0, "hessian_subspace": 0.5, "hvp": 0.3}
    result = train(run_settings, max_epochs=10, optimizer={"lr": 0.02}, loss=loss)
    rows = CsvLog(Path(run_settings["output"]) / "log.csv").read()
    for name in ("forces_rmse", "hessian_mae", "hvp_mae"):
        assert rows[-1][f"train_{name}"] < 0.8 * rows[0][f"train_{name}"], name
        assert f"valid_{name}" in rows[-1]
    assert {"frequency_mae", "lowest_mode_overlap_mae", "zero_point_energy_mae"} <= set(
        result.metrics["valid"]
    )
    assert result.model is not None
    potential = load_potential(result.model)
    graph = build_graph(water(1).to_atoms(), potential.cutoff)
    assert potential.best_hessian_method() == "direct"
    found = potential.hessian(graph)[0]
    assert torch.equal(found, load_potential(result.model).hessian(graph)[0])


def test_resume_is_exact(
    run_settings: dict[str, Any], tmp_path: Path, state_differences: Callable[[Path, Path], list[str]]
) -> None:
    """Random displacements of the Hessian-vector products included."""
    run_settings["loss"] = {"hessian": 1.0, "hvp": 1.0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(run_settings, max_epochs=2, output=str(whole))
    train(run_settings, max_epochs=2, output=str(parts), stop_after=1)
    train(run_settings, max_epochs=2, output=str(parts), resume=True)
    assert state_differences(whole, parts) == []


def test_a_head_for_a_trained_model(
    run_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {key: value for key, value in run_settings["model"].items() if not key.startswith("hessian_")}
    first = train(run_settings, model=bare, output=str(tmp_path / "first"))
    settings = {key: value for key, value in run_settings.items() if key != "cutoff"}
    settings |= {
        "init": str(first.model),
        "freeze": "backbone",
        "model": {"name": "polyad", **{k: v for k, v in HEAD.items() if k.startswith("hessian_")}},
        "loss": {"hessian": 1.0},
        "data": settings["data"] | {"valid": 2},
    }
    capsys.readouterr()
    second = train(settings, max_epochs=12, optimizer={"lr": 0.02}, output=str(tmp_path / "second"))
    assert "12 of 23 frames have no Hessian and are left out" in capsys.readouterr().err
    rows = CsvLog(tmp_path / "second" / "log.csv").read()
    assert rows[-1]["train_hessian_mae"] < 0.5 * rows[0]["train_hessian_mae"]
    assert "train_forces_rmse" not in rows[-1]
    assert first.model is not None
    assert second.model is not None
    old, new = load_potential(first.model), load_potential(second.model)
    assert (old.has_direct_hessian, new.has_direct_hessian) == (False, True)
    graph = build_graph(water(1).to_atoms(), 3.0)
    for key, value in old(graph, novelty=True).items():
        assert torch.equal(new(graph, novelty=True)[key], value)
    headers = [read_header(model) for model in (first.model, second.model)]
    assert headers[0]["data_hash"] == headers[1]["data_hash"] != headers[1]["hessian_data_hash"]
    assert headers[0]["e0s"] == headers[1]["e0s"]
    # and once more, the head and all, with a head of another shape learned anew
    settings["model"]["hessian_width"] = 5
    again = train(settings | {"init": str(second.model)}, max_epochs=1, output=str(tmp_path / "third"))
    assert again.model is not None


def test_a_trained_model_grows(run_settings: dict[str, Any], tmp_path: Path) -> None:
    bare = {key: value for key, value in run_settings["model"].items() if not key.startswith("hessian_")}
    settings = run_settings | {"loss": {"energy": 1.0, "forces": 10.0}}
    first = train(settings, model=bare, max_epochs=6, output=str(tmp_path / "first"))
    del settings["cutoff"]
    settings |= {"init": str(first.model), "model": {"name": "polyad", "num_channels": 6}}
    second = train(settings, max_epochs=1, optimizer={"lr": 1e-9}, output=str(tmp_path / "second"))
    assert first.model is not None
    assert second.model is not None
    assert read_header(second.model)["config"]["num_channels"] == 6
    for key, value in first.metrics["valid"].items():
        assert second.metrics["valid"][key] == pytest.approx(value, rel=1e-4)
    train(settings, max_epochs=2, stop_after=1, output=str(tmp_path / "part"))
    assert load_potential(first.model).domain is not None
    assert load_potential(tmp_path / "part" / "model.safetensors").domain is None  # its features changed
    with pytest.raises(InputError, match=r"`model\.num_channels` is 3 but `init` has 6; leave it out"):
        train(settings, init=str(second.model), model={"name": "polyad", "num_channels": 3})
    settings |= {
        "model": {"name": "polyad", "num_channels": 8, "hessian_cutoff": 4.0},
        "loss": {"hessian": 1},
    }
    with pytest.raises(InputError, match="grow before it gets the head"):
        train(settings | {"init": str(second.model)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"freeze": "backbone", "loss": {"hessian": 1}},
            "`freeze: backbone` needs a trained model as `init`",
        ),
        ({"freeze": "backbone", "init": "default"}, "trains the head for Hessians alone: set `loss.hessian`"),
        ({}, "`model.hessian_cutoff` gives the model a head for Hessians that nothing would train"),
        ({"loss": {"hessian": 1}, "model.hessian_cutoff": 0.0}, "the model has no head for Hessians"),
        ({"loss": {"hessian": 1}, "data.train": "plain"}, "no frame has a Hessian, but `loss.hessian`"),
        ({"loss": {"hvp": 1}, "init": "default"}, "`cutoff` is 3.0 but that of `init` is 5.0; leave it out"),
        (
            {"loss": {"hvp": 1}, "init": "default", "cutoff": 5.0},
            "`model.num_channels` is 4 but `init` has 96",
        ),
        ({"loss": {"hvp": 1}, "init": "nowhere.safetensors"}, "neither a file nor one of"),
    ],
)
def test_refusals(
    run_settings: dict[str, Any], data_file: Path, changes: dict[str, Any], message: str
) -> None:
    for key, value in changes.items():
        *section, last = key.split(".")
        (run_settings[section[0]] if section else run_settings)[last] = (
            data_file if value == "plain" else value
        )
    with pytest.raises(InputError, match=message):
        train(run_settings)


def test_init_is_relative_to_the_configuration(tmp_path: Path, config_file: Path) -> None:
    config_file.write_text(config_file.read_text() + "init: models/a.safetensors\n")
    assert load_config(config_file).init == str(tmp_path / "models/a.safetensors")
    assert load_config(config_file, ["init=default"]).init == "default"
