"""Gradients of a loss by the weights through one directional derivative, against autograd."""

from __future__ import annotations

import pytest
import torch
from test_adjoint import COVERED, graph, potential
from torch import Tensor

from mlip.kernels.library import usable
from mlip.potential import Potential

pytestmark = pytest.mark.skipif(not usable(), reason="the compiled kernels are not installed")


def loss_gradients(p: Potential) -> tuple[Tensor, dict[str, Tensor]]:
    """Some loss of energies, forces and stress, and its gradient by each weight."""
    p.zero_grad()
    output = p(graph(), stress=True, create_graph=True)
    loss = output["energy"].sin().sum() + (output["forces"] ** 3).sum() + output["stress"].square().sum()
    loss.backward()
    return loss.detach(), {name: w.grad for name, w in p.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("options", COVERED)
def test_agrees_with_autograd(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    p = potential(**options).requires_grad_(True)
    loss, by_hand = loss_gradients(p)
    monkeypatch.setattr(p.model, "energy_and_gradient", lambda *_, **__: None)
    expected, recorded = loss_gradients(p)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    assert by_hand.keys() == recorded.keys()
    assert len(recorded) > 10
    for name, gradient in recorded.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(by_hand[name], gradient, rtol=0, atol=1e-10 * scale, msg=name)


def test_frozen_weights_get_nothing() -> None:
    p = potential().requires_grad_(True)
    _, everything = loss_gradients(p)
    p.model.embedding.requires_grad_(False)
    _, some = loss_gradients(p)
    assert everything.keys() - some.keys() == {"model.embedding"}
    assert all(torch.equal(some[name], everything[name]) for name in some)


def test_second_derivatives_are_refused() -> None:
    p = potential().requires_grad_(True)
    forces = p(graph(), create_graph=True)["forces"]
    (first,) = torch.autograd.grad(forces.square().sum(), [p.model.embedding], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_positions_that_learn_are_left_to_autograd() -> None:
    p, g = potential().requires_grad_(True), graph()
    g.positions.requires_grad_()
    forces = p(g, create_graph=True)["forces"]
    (row,) = torch.autograd.grad(forces[0, 0], g.positions)
    assert row.abs().max() > 0
