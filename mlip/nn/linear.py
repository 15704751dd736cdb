"""Equivariant linear maps: one matrix per degree, shared by its components."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mlip.kernels.reference import degree_of_harmonic
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

    degree: Tensor

    def __init__(self, lmax: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.scale = 1 / math.sqrt(channels_in)
        self.weight = nn.Parameter(torch.randn(lmax + 1, channels_in, channels_out))
        self.register_buffer("degree", degree_of_harmonic(lmax + 1), persistent=False)
        self._matrices = FrozenCache()

    def matrices(self) -> Float[Tensor, "harmonics channels_in channels_out"]:
        """The matrix of each component."""
        return (self.weight * self.scale).index_select(0, self.degree)

    def frozen_matrices(self) -> Float[Tensor, "harmonics channels_in channels_out"]:
        """`matrices`, computed once while the weights are frozen."""
        return self._matrices.get([self.weight], self.matrices)

    def forward(
        self, x: Float[Tensor, "nodes harmonics channels_in"]
    ) -> Float[Tensor, "nodes harmonics channels_out"]:
        return torch.bmm(x.transpose(0, 1), self.frozen_matrices()).transpose(0, 1)
