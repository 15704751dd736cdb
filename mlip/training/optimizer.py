"""The optimisers: AdamW, and Muon for the matrices between hidden features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.errors import InputError
from mlip.training.config import TrainConfig

MUON_MOMENTUM = 0.95
UPDATE_RMS = 0.2
"""Root mean square of an update divided by the learning rate, as AdamW's are (Liu et al. 2025)."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen for a steep slope at zero; see `orthogonalised`."""


def orthogonalised(x: Float[Tensor, "*stack rows columns"], steps: int = 5) -> Tensor:
    r"""Roughly $UV^T$ of $x = USV^T$: singular vectors as they were, values near 1 (at most 1.3, smaller
    where that of x is below a hundredth of its norm).

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
    https://kellerjordan.github.io/posts/muon/, five steps of a Newton–Schulz iteration.
    """
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    r"""Momentum with orthogonalised updates for groups that are `matrices`, AdamW for the other groups.

    Of a stack of matrices each is updated alone, by a matrix whose root mean square is about 0.2 learning
    rates, so that one learning rate serves both kinds of groups. `torch.optim.Muon` takes single matrices
    only and computes in bfloat16.

    Source: K. Jordan et al., as above; the size of updates: Liu et al. 2025, arXiv:2502.16982.
    """

    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        """What AdamW is to update: nothing of the matrices."""
        return False if group["matrices"] else bool(super()._init_group(group, *lists))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = super().step(closure)
        for group in self.param_groups:
            if group["matrices"]:
                for p in group["params"]:
                    if p.grad is not None:
                        self._step_of_matrices(p, p.grad, group)
        return loss

    def _step_of_matrices(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, lr = self.state[p], group["lr"]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it when a state is restored
            state["momentum"] = torch.zeros_like(p)
        state["step"] += 1
        momentum = state["momentum"].lerp_(grad, 1 - MUON_MOMENTUM)
        update = orthogonalised(torch.lerp(grad, momentum, MUON_MOMENTUM))
        p.mul_(1 - lr * group["weight_decay"])
        p.add_(update, alpha=-lr * UPDATE_RMS * math.sqrt(max(p.shape[-2:])))


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that map hidden features to hidden features, as the modules that own them declare."""
    return [
        getattr(part, name)
        for part in module.modules()
        for name in getattr(part, "HIDDEN_MATRICES", ())
        if hasattr(part, name)
    ]


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of `config`; weights decay in tensors of two or more dimensions only.

    Raises:
        InputError: No parameter requires a gradient.
    """
    settings = config.optimizer
    learnt = [p for p in module.parameters() if p.requires_grad]
    if not learnt:
        raise InputError("the model has no weights to train")
    hidden = {id(p) for p in hidden_matrices(module)} if settings.name == "muon" else set()
    kinds = [
        ([p for p in learnt if id(p) in hidden], settings.weight_decay, True),
        ([p for p in learnt if id(p) not in hidden and p.ndim >= 2], settings.weight_decay, False),
        ([p for p in learnt if p.ndim < 2], 0.0, False),
    ]
    groups = [
        {"params": params, "weight_decay": decay} | ({"matrices": matrices} if hidden else {})
        for params, decay, matrices in kinds
        if params
    ]
    make = Muon if hidden else torch.optim.AdamW
    return make(
        groups,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        amsgrad=settings.amsgrad,
        fused=True,
    )
