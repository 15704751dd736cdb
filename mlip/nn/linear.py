"""Equivariant linear maps: one matrix per degree, shared by its components."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.kernels.linear import linear
from mlip.nn.frozen import FrozenCache


class EquivariantLinear(nn.Module):
    """`out[n, lm, d] = sum_c x[n, lm, c] weight[l, c, d] / sqrt(channels_in)`; no bias.

    Args:
        lmax: Largest degree.
        channels_in: Channels in.
        channels_out: Channels out.
    """

    HIDDEN_MATRICES = ("weight",)
    """Read by `mlip.training.optimizer`."""

    def __init__(self, lmax: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.scale = 1 / math.sqrt(channels_in)
        self.weight = nn.Parameter(torch.randn(lmax + 1, channels_in, channels_out))
        self._matrices, self._transposed = FrozenCache(), FrozenCache()

    def matrices(
        self,
    ) -> tuple[
        Float[Tensor, "degrees channels_in channels_out"], Float[Tensor, "degrees channels_out channels_in"]
    ]:
        """The matrix of each degree and its transpose, both dense; kept while the weights are frozen."""
        matrices = self._matrices.get([self.weight], lambda: self.weight * self.scale)
        return matrices, self._transposed.get([self.weight], lambda: matrices.transpose(1, 2).contiguous())

    def forward(
        self, x: Float[Tensor, "nodes harmonics channels_in"]
    ) -> Float[Tensor, "nodes harmonics channels_out"]:
        return linear(x, *self.matrices())
