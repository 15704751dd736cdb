"""A small potential with random weights."""

from __future__ import annotations

import pytest
import torch

from mlip.models import Polyad
from mlip.models.polyad import PolyadConfig
from mlip.potential import Potential


@pytest.fixture(scope="session")
def potential() -> Potential:
    """H, C, N, O for molecules and Si for crystals; training mode and trainable, as it comes out of
    training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PolyadConfig(species=(1, 6, 7, 8, 14), cutoff=4.0, num_channels=8, lmax=2, radial_width=8)
        return Potential(Polyad(config), {1: -1.0, 6: -6.0, 7: -7.0, 8: -8.0, 14: -14.0}).double()
