"""More channels for a trained model, without changing what it computes.

Source: Chen, Goodfellow & Shlens 2016, "Net2Net: Accelerating learning via knowledge transfer",
arXiv:1511.05641. Here new channels are fresh instead of copies, and what reads them starts at zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlip.models.polyad import Polyad, Readout
from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial import RadialTable


@torch.no_grad()
def widen(wide: Polyad, narrow: Polyad) -> None:
    """Give an untrained model the weights of one with fewer channels, so that both compute the same.

    Channels are mixed by linear maps alone: the first ones keep their weights, the others theirs of an
    untrained model, and what the maps would carry from the others to the first, or to an energy, is zero.

    Args:
        wide: Changed in place. Has no head for Hessians.
        narrow: Has the same options but for fewer `num_channels`, and no head for Hessians.
    """
    width, ratio = narrow.config.num_channels, wide.config.num_channels / narrow.config.num_channels
    old = dict(narrow.named_modules())
    for name, module in wide.named_modules():
        for key, weight in module.named_parameters(recurse=False):
            kept: Tensor = getattr(old[name], key)
            if isinstance(module, EquivariantLinear):
                weight[:, width:, :width] = 0
                weight[:, :width, :width] = kept * math.sqrt(ratio)
            elif isinstance(module, Readout) and key in ("linear", "hidden"):
                weight[width:] = 0
                weight[:width] = kept * (ratio if key == "linear" else math.sqrt(ratio))
            elif isinstance(module, RadialTable) and weight.shape != kept.shape:
                functions = weight.unflatten(-1, (module.num_functions, -1))
                functions[..., :width] = kept.unflatten(-1, (module.num_functions, -1))
            else:  # one weight per channel, or no channels at all
                weight[..., : kept.shape[-1]] = kept
