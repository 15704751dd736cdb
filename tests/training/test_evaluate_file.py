"""`mlip evaluate`: remarks on energies that differ by constants; stresses beside molecules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import read

from mlip.checkpoint import save_potential
from mlip.datasets import Frame
from mlip.datasets.write import write_frames
from mlip.training.build import make_potential
from mlip.training.config_file import parse_config
from mlip.training.evaluate_file import FileErrors, Request, constant_shift, evaluate_file
from mlip.training.evaluation import Predictions
from mlip.training.references import Statistics


def case(noise: float, shifts: tuple[float, float]) -> tuple[list[Frame], Predictions]:
    random = np.random.default_rng(1)
    counts = random.integers(1, 5, size=(20, 2))
    frames = [Frame(positions=random.normal(size=(a + b, 3)), atomic_numbers=[1] * a + [8] * b, energy=0.0)
              for a, b in counts]  # fmt: skip
    error = counts @ np.array(shifts) + noise * random.normal(size=20)
    sizes = counts.sum(1)
    nothing = np.zeros((int(sizes.sum()), 3))
    return frames, Predictions(error, None, None, sizes, np.zeros(20), nothing, np.zeros((20, 3, 3)))


def test_a_constant_per_element_is_pointed_out() -> None:
    remark = constant_shift(*case(0.01, (-3.0, 7.5)))
    assert remark is not None
    assert "H -3" in remark
    assert "O +7.5" in remark
    assert "Is the zero of energy, or the level of theory" in remark


def test_scatter_and_small_errors_are_not() -> None:
    assert constant_shift(*case(5.0, (0.1, 0.1))) is None
    assert constant_shift(*case(0.001, (0.005, 0.005))) is None


@pytest.fixture
def model(tmp_path: Path, settings: dict[str, Any]) -> str:
    """A potential of random weights."""
    torch.manual_seed(0)
    potential = make_potential(
        parse_config(settings, "settings"),
        species=(1, 8),
        e0s={1: -13.5, 8: -430.0},
        statistics=Statistics(avg_num_neighbors=2.0, energy_scale=1.0),
    )
    save_potential(potential, tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_stress_is_compared_where_there_is_a_cell(
    tmp_path: Path, model: str, frames: list[Frame], crystals: list[Frame]
) -> None:
    atom = Frame(np.zeros((1, 3)), np.array([1]), energy=-13.5, info={"config_type": "IsolatedAtom"})
    flat = np.diag([4.0, 4.0, 0.0])
    slab = replace(crystals[0], cell=flat, pbc=np.array([True, True, False]), stress=None)
    labelled = replace(slab, stress=np.eye(3))
    lines: list[str] = []

    def evaluate(name: str, these: list[Frame]) -> FileErrors:
        write_frames(tmp_path / name, these)
        lines.clear()
        out = tmp_path / f"out_{name}"
        request = Request(model=model, data=tmp_path / name, batch_size=4, device="cpu", out=out)
        return evaluate_file(request, say=lines.append)

    parts = [evaluate("crystals.xyz", crystals), evaluate("flat.xyz", [atom, slab, *frames[:3]])]
    mixed = [*crystals[:3], atom, slab, *frames[:3], *crystals[3:]]
    found = evaluate("mixed.xyz", mixed)
    assert not any("stress is passed over" in line for line in lines)
    assert found.metrics["stress_rmse"] == pytest.approx(parts[0].metrics["stress_rmse"], rel=1e-12)
    assert "stress_rmse" not in parts[1].metrics
    images = read(tmp_path / "out_mixed.xyz", ":")
    assert ["mlip_stress" in image.info for image in images] == [frame.volume > 0 for frame in mixed]
    apart = [*read(tmp_path / "out_crystals.xyz", ":"), *read(tmp_path / "out_flat.xyz", ":")]
    for image, same in zip([*images[:3], *images[8:], *images[3:8]], apart, strict=True):
        assert image.info["mlip_energy"] == pytest.approx(same.info["mlip_energy"], abs=1e-10)
        np.testing.assert_allclose(image.arrays["mlip_forces"], same.arrays["mlip_forces"], atol=1e-10)
    odd = evaluate("labelled.xyz", [*crystals, labelled])
    assert odd.metrics["stress_rmse"] == pytest.approx(parts[0].metrics["stress_rmse"], rel=1e-12)
    assert any("1 of 8 frames have a stress but no cell with a volume" in line for line in lines)
