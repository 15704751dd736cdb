"""Training steps against a plain loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mlip.datasets import Frame
from mlip.training.build import make_potential
from mlip.training.config_file import parse_config
from mlip.training.fit import make_trainer
from mlip.training.module import TrainingModule
from mlip.training.packed import pack
from mlip.training.references import Statistics
from mlip.training.run import Processes
from mlip.training.schedule import learning_rate_factor


def test_steps_are_those_of_a_plain_loop(settings: dict[str, Any], frames: list[Frame]) -> None:
    changes = {
        "max_epochs": 1,
        "gradient_clip": 0.5,
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "amsgrad": True},
        "loss": {"energy": [[0, 2], [0.5, 20]], "forces": 3},
    }
    config = parse_config(settings | changes, "settings")
    torch.manual_seed(0)
    potential = make_potential(
        config, species=(1, 8), e0s={1: -13.5, 8: -430.0}, statistics=Statistics(1.8, 0.7)
    )
    twin = copy.deepcopy(potential)
    data = pack(frames, 3.0, dtype=torch.float64)
    module = TrainingModule(potential, config, data, data)
    trainer = make_trainer(config, Processes(0, 0, 1, 1), torch.device("cpu"), [])
    trainer.fit(module)

    weights = list(twin.parameters())
    average = [w.detach().clone() for w in weights]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": 0.1},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), amsgrad=True)
    clipped = 0
    for step, share in enumerate(module.sampler.batches(0)):
        batch = data.batch(share.frames)
        out = twin(batch.graph, create_graph=True)
        atoms = torch.tensor([len(frames[i]) for i in share.frames])
        energy = (((out["energy"] - batch.energy) / atoms) ** 2).mean()
        loss = (2 if step / 5 < 0.5 else 20) * energy + 3 * ((out["forces"] - batch.forces) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        clipped += int(torch.nn.utils.clip_grad_norm_(weights, 0.5) > 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * learning_rate_factor(step, 5, config.schedule)
        optimizer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * w.detach() for a, w in zip(average, weights, strict=True)]
    assert step == 4
    assert clipped > 0
    for ours, theirs in zip(potential.parameters(), weights, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    with module.ema.applied():
        for ours, theirs in zip(potential.parameters(), average, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_epoch_in_the_log(settings: dict[str, Any], frames: list[Frame]) -> None:
    config = parse_config(settings | {"max_epochs": 1, "loss": {"energy": 2, "forces": 3}}, "settings")
    potential = make_potential(
        config, species=(1, 8), e0s={1: -13.5, 8: -430.0}, statistics=Statistics(1.8, 0.7)
    )
    data = pack(frames, 3.0, dtype=torch.float64)
    module = TrainingModule(potential, config, data, data)
    errors = module.validate()
    expected = 2 * errors["energy_per_atom_rmse"] ** 2 + 3 * errors["forces_rmse"] ** 2
    assert errors["loss"] == pytest.approx(expected)
    changed = parse_config(
        settings
        | {"loss": {"energy": [[0, 9], [0.5, 2]], "forces": 3, "form": "huber", "energy_form": "mse"}},
        "settings",
    )
    errors = TrainingModule(potential, changed, data, data).validate()
    expected = 2 * errors["energy_per_atom_rmse"] ** 2 + 3 * errors["forces_mae"]
    assert errors["loss"] == pytest.approx(expected)
    assert all(p.requires_grad for p in potential.parameters())
