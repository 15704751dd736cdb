"""Modules with fixed tensors that change of precision cannot wear down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ConstantModule(nn.Module):
    """A module whose constants are non-persistent buffers, always rounded from a float64 master.

    ``module.float().double()`` leaves an ordinary buffer at single precision; here each conversion starts
    again from the master, so the float64 constants come back to the last digit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._masters: dict[str, Tensor] = {}

    def register_constant(self, name: str, value: Tensor) -> None:
        """Add a floating-point constant as attribute `name`, float64 until the module is converted."""
        self._masters[name] = value.detach().to("cpu", torch.float64)
        self.register_buffer(name, self._masters[name].clone(), persistent=False)

    def constant(self, name: str, like: Tensor) -> Tensor:
        """The constant in the precision of `like`."""
        return self.get_buffer(name).to(like.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConstantModule:
        super()._apply(fn, recurse)
        for name, master in self._masters.items():
            buffer = self._buffers[name]
            if buffer is not None:
                self._buffers[name] = master.to(buffer.device, buffer.dtype, copy=True)
        return self
