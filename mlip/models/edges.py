"""What all layers of a backbone are told about the edges."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Edges(NamedTuple):
    """Basis functions and ends of the edges; see `mlip.kernels.message` for the shapes.

    In `mlip.models.tangent` harmonics and radial basis have a first axis of value and tangent.
    """

    y: Tensor
    """Harmonics."""
    beta: Tensor
    """Radial basis."""
    row: Tensor
    """First row of the radial table, of the pair of species and the interval."""
    senders: Tensor
    receivers: Tensor
