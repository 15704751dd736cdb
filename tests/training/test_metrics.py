"""Accumulated errors against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlip.datasets import Frame
from mlip.training.metrics import ErrorSums
from mlip.training.packed import pack


def test_errors_over_batches(crystals: list[Frame]) -> None:
    packed = pack(crystals, 3.0, dtype=torch.float64)
    sums = ErrorSums((1, 8))
    errors: dict[str, list[np.ndarray]] = {
        "energy": [],
        "forces": [],
        "stress": [],
        "per_atom": [],
        "oxygen": [],
    }
    generator = torch.Generator().manual_seed(0)
    for which in (np.array([0, 1, 2]), np.array([3, 4]), np.array([5, 6])):
        batch = packed.batch(which)
        noise = {
            name: torch.randn(getattr(batch, name).shape, generator=generator, dtype=torch.float64)
            for name in ("energy", "forces", "stress")
        }
        sums.add({name: getattr(batch, name) + noise[name] for name in noise}, batch)
        for name, value in noise.items():
            errors[name].append(value.numpy().ravel())
        errors["per_atom"].append(noise["energy"].numpy() / [len(crystals[i]) for i in which])
        errors["oxygen"].append(noise["forces"][batch.graph.atomic_numbers == 8].numpy().ravel())
    result = sums.result()
    names = {"energy": "energy", "forces": "forces", "stress": "stress", "per_atom": "energy_per_atom"}
    for ours, theirs in names.items():
        x = np.concatenate(errors[ours])
        assert result[f"{theirs}_rmse"] == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-10)
        assert result[f"{theirs}_mae"] == pytest.approx(np.mean(np.abs(x)), rel=1e-10)
    x = np.concatenate(errors["oxygen"])
    assert result["forces_rmse_O"] == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-10)


def test_what_is_missing_does_not_count(frames: list[Frame]) -> None:
    packed = pack(frames[:2], 3.0, dtype=torch.float64)
    packed.forces[:3] = torch.nan
    batch = packed.batch(np.array([0, 1]))
    sums = ErrorSums()
    sums.add({"energy": batch.energy + 1, "forces": torch.nan_to_num(batch.forces) + 0.5}, batch)
    assert sums.result()["forces_rmse"] == pytest.approx(0.5)
    assert sums.state()[2, 0] == 9
    assert "stress_rmse" not in sums.result()


def test_a_prediction_that_is_not_a_number_shows(frames: list[Frame]) -> None:
    batch = pack(frames, 3.0, dtype=torch.float64).batch(np.array([0, 1]))
    sums = ErrorSums()
    sums.add({"energy": batch.energy * torch.tensor([1.0, torch.nan])}, batch)
    assert np.isnan(sums.result()["energy_rmse"])


def test_state(frames: list[Frame]) -> None:
    batch = pack(frames, 3.0, dtype=torch.float64).batch(np.array([0, 1]))
    first, second = ErrorSums(), ErrorSums()
    first.add({"energy": batch.energy + 1}, batch)
    second.restore(first.state())
    assert second.result() == first.result()
