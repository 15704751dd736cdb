"""The loss against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlip.datasets import Frame
from mlip.training.config import Loss
from mlip.training.loss import Labels, Weights, batch_loss, penalty
from mlip.training.packed import pack

ALL = Weights(energy=2.0, forces=3.0, stress=5.0)


def errors_of(batch, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(getattr(batch, name).shape, generator=generator, dtype=torch.float64)
        for name in ("energy", "forces", "stress")
    }


def output_of(batch, errors):
    return {name: torch.nan_to_num(getattr(batch, name)) + error for name, error in errors.items()}


def test_definition(crystals: list[Frame]) -> None:
    packed = pack(crystals, 3.0, dtype=torch.float64)
    batch = packed.batch(np.array([0, 2, 4]))
    errors = errors_of(batch)
    value = batch_loss(output_of(batch, errors), batch, ALL, Loss(stress=1.0), Labels.of(Loss(stress=1.0)))
    n = torch.tensor([len(crystals[i]) for i in (0, 2, 4)])
    expected = (
        2 * ((errors["energy"] / n) ** 2).mean()
        + 3 * (errors["forces"] ** 2).mean()
        + 5 * (errors["stress"] ** 2).mean()
    )
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


def test_sums_over_processes_to_the_whole(crystals: list[Frame]) -> None:
    packed = pack(crystals, 3.0, dtype=torch.float64)
    config, whole = Loss(stress=1.0, form="huber"), np.arange(7)
    batch = packed.batch(whole)
    errors = errors_of(batch)
    total = batch_loss(output_of(batch, errors), batch, ALL, config, Labels.of(config))
    parts = 0.0
    for mine in (whole[:3], whole[3:]):
        part = packed.batch(mine, whole=whole)
        atoms = torch.isin(batch.graph.batch, torch.from_numpy(mine))
        mine_errors = {
            "energy": errors["energy"][mine],
            "forces": errors["forces"][atoms],
            "stress": errors["stress"][mine],
        }
        parts += batch_loss(output_of(part, mine_errors), part, ALL, config, Labels.of(config)).item()
    dummy = packed.batch(whole[:1], counted=False, whole=whole)
    parts += batch_loss(output_of(dummy, errors_of(dummy)), dummy, ALL, config, Labels.of(config)).item()
    assert parts == pytest.approx(total.item(), rel=1e-12)


def test_frame_weights(frames: list[Frame]) -> None:
    packed = pack(frames, 3.0, dtype=torch.float64)
    packed.weight[1] = 10.0
    errors = {"energy": torch.tensor([0.0, 0.3], dtype=torch.float64), "forces": torch.zeros(6, 3)}
    batch = packed.batch(np.array([0, 1]))
    value = batch_loss(output_of(batch, errors), batch, Weights(1, 1, 0), Loss(), Labels.of(Loss()))
    assert value.item() == pytest.approx(10 * (0.3 / 3) ** 2 / 2)


def test_missing_labels_add_nothing_and_leave_gradients_finite(frames: list[Frame]) -> None:
    packed = pack(frames, 3.0, dtype=torch.float64)
    packed.forces[:3] = torch.nan
    batch = packed.batch(np.array([0, 1]))
    output = {name: value.requires_grad_() for name, value in output_of(batch, errors_of(batch)).items()}
    value = batch_loss(output, batch, ALL, Loss(stress=1.0), Labels.of(Loss(stress=1.0)))
    value.backward()
    assert torch.isfinite(value)
    assert output["forces"].grad is not None
    assert (output["forces"].grad[:3] == 0).all()
    assert (output["forces"].grad[3:] != 0).all()


def test_penalties() -> None:
    x = torch.tensor([-0.3, 0.004, 0.0], dtype=torch.float64)
    assert penalty(x, "mse", 0.01).tolist() == pytest.approx([0.09, 1.6e-5, 0.0])
    assert penalty(x, "mae", 0.01).tolist() == pytest.approx([0.3, 0.004, 0.0])
    assert penalty(x, "huber", 0.01).tolist() == pytest.approx([0.3 - 0.005, 0.004**2 / 0.02, 0.0])


def test_labels_and_scheduled_weights() -> None:
    config = Loss(energy=[(0.0, 0.0), (0.5, 4.0)], forces=1.0)
    assert Labels.of(config) == Labels(energy=True, forces=True, stress=False)
    assert Labels.of(config) == Labels(energy=True, forces=True, stress=False)
    assert Weights.at(config, 0.4) == Weights(0.0, 1.0, 0.0)
    assert Weights.at(config, 0.6) == Weights(4.0, 1.0, 0.0)
