"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    r"""$\bar\theta \leftarrow d_k\bar\theta + (1-d_k)\theta$ after step $k$, $d_k = \min(d, (1+k)/(10+k))$.

    The smaller decay of the first steps keeps the random initial weights from lingering in the average.

    Args:
        module: Module whose trainable parameters are averaged.
        decay: $d$; 0 makes the average the weights themselves.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._names = [name for name, p in module.named_parameters() if p.requires_grad]
        self._live = [p for p in module.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged weights into the module for the duration of the block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average."""
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, object]:
        """Averaged weights by name, and the number of steps."""
        return {"steps": self.steps, "average": dict(zip(self._names, self._average, strict=True))}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what ``state_dict`` returned."""
        saved = state["average"]
        if not isinstance(saved, dict) or set(saved) != set(self._names):
            raise ValueError("the saved average belongs to another model")
        self.steps = int(str(state["steps"]))
        for name, average in zip(self._names, self._average, strict=True):
            value = saved[name]
            if not isinstance(value, Tensor):
                raise TypeError(f"the saved average of {name} is not a tensor")
            average.copy_(value)
