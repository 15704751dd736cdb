"""Gated nonlinearity: what a network may do to irreps point by point."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Gate(nn.Module):
    """Scalars through SiLU; every higher degree times a sigmoid of a linear map of the scalars.

    In natural parity all scalars are even, so the map is equivariant under all of O(3).

    Args:
        lmax: Largest degree.
        num_channels: Channels.

    Source: Weiler et al. 2018, arXiv:1807.02547.
    """

    def __init__(self, lmax: int, num_channels: int) -> None:
        super().__init__()
        self.lmax, self.num_channels = lmax, num_channels
        self.weight = nn.Parameter(torch.randn(num_channels, lmax * num_channels) / math.sqrt(num_channels))

    def forward(
        self, x: Float[Tensor, "nodes harmonics channels"]
    ) -> Float[Tensor, "nodes harmonics channels"]:
        """Same shape as `x`, whose second dimension is `(lmax + 1)**2`."""
        scalars = x[:, :1]
        gates = torch.sigmoid(x[:, 0] @ self.weight).unflatten(-1, (self.lmax, self.num_channels))
        parts = [nn.functional.silu(scalars)]
        parts += [x[:, l * l : (l + 1) ** 2] * gates[:, l - 1 : l] for l in range(1, self.lmax + 1)]
        return torch.cat(parts, dim=1)
