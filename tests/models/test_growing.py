"""A larger model computes what the small one does, and every weight of it can learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor

from mlip.errors import InputError
from mlip.models import Polyad
from mlip.models.growing import grow
from mlip.models.polyad import PolyadConfig
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


OPTIONS: list[dict[str, Any]] = [
    {}, {"product": "cg"}, {"product": "quadrature"}, {"radial": "spline"}, {"lmax_hidden": 0},
    {"num_layers": 2},
]  # fmt: skip


@pytest.mark.parametrize("more", [{"num_channels": 7}, {"num_layers": 4}, {"lmax_hidden": 2}, {}], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_energies_and_then_more_to_learn(options: dict[str, Any], more: dict[str, int]) -> None:
    torch.manual_seed(0)
    small = Polyad(dataclasses.replace(CONFIG, **options)).double()
    more = more or {"num_channels": 6, "num_layers": 5, "lmax_hidden": 2}
    large = Polyad(dataclasses.replace(small.config, **more)).double()
    if "lmax_hidden" in more and small.config.product == "cg":
        with pytest.raises(InputError, match="`lmax_hidden` is 2 but with product 'cg' it must stay 1"):
            grow(large, small)
        return
    expected = energies(small)
    assert not torch.allclose(energies(large), expected)
    grow(large, small)
    torch.testing.assert_close(energies(large), expected, rtol=1e-11, atol=1e-12)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in large.parameters():  # what is exactly zero hides what reads it
            weight += 1e-3 * torch.randn_like(weight)
    assert not torch.allclose(energies(large), expected)
    energies(large).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in large.parameters())


def test_a_single_layer_stays_alone() -> None:
    small = Polyad(dataclasses.replace(CONFIG, num_layers=1)).double()
    with pytest.raises(InputError, match="`num_layers` is 2 but a model of one layer cannot get more"):
        grow(Polyad(dataclasses.replace(CONFIG, num_layers=2)).double(), small)
    wide = Polyad(dataclasses.replace(CONFIG, num_layers=1, num_channels=5)).double()
    grow(wide, small)
    torch.testing.assert_close(energies(wide), energies(small), rtol=1e-11, atol=1e-12)
