"""The average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlip.training.ema import ExponentialMovingAverage


def test_recursion() -> None:
    module = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    average = module.weight.detach().clone()
    ema = ExponentialMovingAverage(module, 0.5)
    for step in range(30):
        with torch.no_grad():
            module.weight += 1.0
        ema.update()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * module.weight.detach()
    live = module.weight.detach().clone()
    with ema.applied():
        assert torch.allclose(module.weight, average, rtol=1e-14)
    assert torch.equal(module.weight, live)


def test_weights_come_back_after_an_error() -> None:
    module = nn.Linear(2, 1)
    live = module.weight.detach().clone()
    ema = ExponentialMovingAverage(module, 0.9)
    with torch.no_grad():
        module.weight += 1

    def use() -> None:
        with ema.applied():
            assert torch.equal(module.weight, live)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use()
    assert torch.equal(module.weight, live + 1)


def test_state_continues_exactly() -> None:
    module = nn.Linear(2, 1)
    first, second = ExponentialMovingAverage(module, 0.9), ExponentialMovingAverage(nn.Linear(2, 1), 0.9)
    with torch.no_grad():
        module.weight += 1
    first.update()
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["steps"] == 1
    assert torch.equal(second.state_dict()["average"]["weight"], first.state_dict()["average"]["weight"])
    with pytest.raises(ValueError, match="belongs to another model"):
        ExponentialMovingAverage(nn.Linear(2, 1, bias=False), 0.9).load_state_dict(first.state_dict())
