from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from mlip.nn.frozen import FrozenCache


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0], dtype=torch.float64), requires_grad=False)
        self.cache, self.calls = FrozenCache(), 0

    def square(self) -> Tensor:
        self.calls += 1
        return self.weight**2

    def forward(self) -> Tensor:
        return self.cache.get([self.weight], self.square)


def test_computed_once() -> None:
    square = Square()
    assert square().tolist() == square().tolist() == [4.0, 9.0]
    assert square.calls == 1
    for twin in (copy.deepcopy(square), pickle.loads(pickle.dumps(square))):
        assert twin().tolist() == [4.0, 9.0]
        assert twin.calls == 2


def test_changed_weights() -> None:
    square = Square()
    square()
    square.weight[0] = 5.0
    assert square().tolist() == [25.0, 9.0]
    square.load_state_dict({"weight": torch.ones(2, dtype=torch.float64)})
    assert square().tolist() == [1.0, 1.0]
    square.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64), requires_grad=False)
    assert square().tolist() == [0.0, 0.0]


def test_converted_weights() -> None:
    """Also when the new weights come to lie where the old ones lay."""
    square = Square()
    for size in (2, 100, 1000, 5000, 20000) * 5:
        square.weight = nn.Parameter(torch.rand(size, dtype=torch.float64), requires_grad=False)
        for _ in range(5):
            square()
            square.float()
            square.double()
            assert torch.equal(square(), square.weight**2)
            square.weight = nn.Parameter(square.weight + 1e-12, requires_grad=False)
    assert square.float()().dtype == torch.float32


def test_trained_weights() -> None:
    square = Square()
    square()
    square.weight.requires_grad_()
    square().sum().backward()
    assert square.weight.grad is not None
    assert square.weight.grad.tolist() == [4.0, 6.0]
    square.weight.requires_grad_(False)
    assert not square().requires_grad


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_results_of_inference_mode_are_not_kept(mode: type) -> None:
    square = Square()
    with mode():
        square()
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (x * square()).sum().backward()
    with torch.inference_mode():
        made_there = Square()
        assert made_there().tolist() == [4.0, 9.0]
    assert made_there().tolist() == [4.0, 9.0]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_results_of_tracing_are_not_kept(mode: str) -> None:
    square = Square()
    traced = make_fx(lambda x: x * square(), tracing_mode=mode, _allow_non_fake_inputs=True)(
        torch.ones(2).double()
    )
    assert type(square()) is Tensor
    assert square().tolist() == traced(torch.ones(2).double()).tolist() == [4.0, 9.0]
