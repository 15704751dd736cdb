"""A larger model from a trained one, which computes the same and can learn more.

Source: Chen, Goodfellow & Shlens 2016, "Net2Net: Accelerating learning via knowledge transfer",
arXiv:1511.05641. Here what is new is fresh instead of a copy, and what reads it starts at zero.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from mlip.errors import InputError
from mlip.models.polyad import Layer, Polyad, Readout
from mlip.nn.linear import EquivariantLinear
from mlip.nn.radial import RadialTable

GROWING: Final = ("num_channels", "num_layers", "lmax_hidden")
"""Options that may be larger."""


@torch.no_grad()
def grow(large: Polyad, small: Polyad) -> None:
    """Give an untrained model the weights of a smaller one, so that both compute the same.

    Channels and degrees are mixed by linear maps alone: the first ones keep their weights, the others
    theirs of an untrained model, and what the maps would carry from the others to the first, or to an
    energy, is zero. New layers come before the last one and at first hand on what they get.

    Args:
        large: Changed in place. Has no head for Hessians.
        small: Has the same options but for smaller ones of `GROWING`, and no head for Hessians.

    Raises:
        InputError: Layers are to be added to a single one, or degrees to products that are not exact.
    """
    old, new = small.config, large.config
    if new.num_layers > old.num_layers == 1:
        raise InputError(f"`num_layers` is {new.num_layers} but a model of one layer cannot get more")
    if new.lmax_hidden > old.lmax_hidden and new.product not in ("cp", "quadrature"):
        raise InputError(
            f"`lmax_hidden` is {new.lmax_hidden} but with product {new.product!r} "
            f"it must stay {old.lmax_hidden}"
        )
    modules, ratio = dict(small.named_modules()), new.num_channels / old.num_channels
    for name, module in large.named_modules():
        path, last = name.split("."), new.num_layers - 1
        if path[0] in ("layers", "readouts") and len(path) > 1:
            if old.num_layers - 1 <= int(path[1]) < last:
                _hand_on(module)
                continue
            path[1] = str(min(int(path[1]), old.num_layers - 1))
        source = modules.get(".".join(path))
        if source is not None:
            _take(module, source, old.num_channels, ratio, reads=path[-1] == "up")


def _hand_on(module: nn.Module) -> None:
    """Make a new layer give what it gets, and its readout nothing."""
    if isinstance(module, Layer):
        module.skip.weight.zero_()
        module.skip.weight.diagonal(dim1=1, dim2=2).fill_(1 / module.skip.scale)
        module.skip_scale.fill_(1.0)
        module.down.weight.zero_()
    elif isinstance(module, Readout):
        module.linear.zero_()


def _take(module: nn.Module, source: nn.Module, width: int, ratio: float, *, reads: bool) -> None:
    """Give the weights of a small module itself, not of those in it, to a large one; `reads` says whether
    degrees that are new come in."""
    for key, weight in module.named_parameters(recurse=False):
        kept: Tensor = getattr(source, key)
        if isinstance(module, EquivariantLinear):
            degrees = kept.shape[0]
            if reads:
                weight[degrees:] = 0
            weight[:degrees, width:, :width] = 0
            weight[:degrees, :width, :width] = kept * math.sqrt(ratio)
        elif isinstance(module, Readout) and key in ("linear", "hidden"):
            weight[width:] = 0
            weight[:width] = kept * (ratio if key == "linear" else math.sqrt(ratio))
        elif isinstance(module, RadialTable) and weight.shape != kept.shape:
            functions = weight.unflatten(-1, (module.num_functions, -1))
            functions[..., :width] = kept.unflatten(-1, (module.num_functions, -1))
        else:  # one weight per channel, or no channels at all
            weight[..., : kept.shape[-1]] = kept
