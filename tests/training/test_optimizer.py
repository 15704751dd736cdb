"""Muon against the singular value decomposition, torch's own, and AdamW."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mlip.training.build import make_potential
from mlip.training.config_file import parse_config
from mlip.training.optimizer import Muon, hidden_matrices, make_optimizer, orthogonalised
from mlip.training.references import Statistics


@pytest.mark.parametrize("shape", [(24, 24), (3, 16, 40), (2, 40, 16)])
def test_orthogonalised_keeps_the_singular_vectors(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    values = u.mT @ orthogonalised(x) @ vh.mT
    diagonal = torch.diagonal(values, dim1=-2, dim2=-1)
    assert torch.allclose(values, torch.diag_embed(diagonal), atol=1e-9)
    assert diagonal.min() > 0.3
    assert diagonal.max() < 1.3


def test_steps_of_one_matrix_are_those_of_torch() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(1)
    ours = torch.nn.Parameter(torch.randn(1, 24, 40))
    theirs = torch.nn.Parameter(ours.detach()[0].clone())
    start = theirs.detach().clone()
    optimizer = Muon([{"params": [ours], "weight_decay": 0.1, "matrices": True}], lr=0.02)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        gradient = torch.randn(24, 40)
        ours.grad, theirs.grad = gradient[None].clone(), gradient.clone()
        optimizer.step()
        reference.step()
    moved = theirs.detach() - start
    assert (ours.detach()[0] - theirs.detach()).norm() < 0.02 * moved.norm()  # it iterates in bfloat16


def test_the_rest_moves_as_with_adamw(settings: dict[str, Any]) -> None:
    changes = {"optimizer": {"name": "muon", "lr": 0.01, "weight_decay": 0.1}}
    config = parse_config(settings | changes, "settings")
    torch.manual_seed(0)
    model = make_potential(config, species=(1, 8), e0s={1: -13.5, 8: -430.0}, statistics=Statistics(1.8, 0.7))
    twin = copy.deepcopy(model)
    optimizer = make_optimizer(model, config)
    plain = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw"})})
    reference = make_optimizer(twin, plain)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    optimizer.step()
    reference.step()
    hidden = {id(p) for p in hidden_matrices(model)}
    same = [
        torch.equal(p, q) != (id(p) in hidden)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    ]
    assert hidden
    assert len(hidden) < len(same)
    assert all(same)
