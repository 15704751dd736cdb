"""A wider model computes what the narrow one does, and every weight of it can learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor

from mlip.models import Polyad
from mlip.models.polyad import PolyadConfig
from mlip.models.widening import widen
from mlip.neighbors import build_graph

CONFIG = PolyadConfig(
    species=(1, 6, 8),
    cutoff=4.0,
    num_channels=4,
    num_layers=3,
    lmax=2,
    lmax_hidden=1,
    num_knots=8,
    radial_width=8,
    readout_width=3,
    avg_num_neighbors=5.0,
    zbl=True,
)


def energies(model: Polyad) -> Tensor:
    positions = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)).numpy() * 3.5
    g = build_graph(Atoms("OHHCHH", positions), 4.0)
    return model(g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())["node_energy"]


@pytest.mark.parametrize(
    "options", [{}, {"product": "cg"}, {"radial": "spline"}, {"num_layers": 1}, {"correlation": 2}]
)
def test_the_same_energies_and_then_more_to_learn(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    narrow = Polyad(dataclasses.replace(CONFIG, **options)).double()
    wide = Polyad(dataclasses.replace(narrow.config, num_channels=7)).double()
    expected = energies(narrow)
    assert not torch.allclose(energies(wide), expected)
    widen(wide, narrow)
    torch.testing.assert_close(energies(wide), expected, rtol=1e-11, atol=1e-12)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in wide.parameters():  # what is exactly zero hides what reads it
            weight += 1e-3 * torch.randn_like(weight)
    assert not torch.allclose(energies(wide), expected)
    energies(wide).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in wide.parameters())
