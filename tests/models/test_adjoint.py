"""Energies and gradients by hand against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlip.graph import AtomGraph, collate
from mlip.kernels.library import usable
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.nn.repulsion import ZBLRepulsion
from mlip.potential import Potential

SPECIES = (1, 6, 8)

COVERED: list[dict] = [
    {},
    {"product": "quadrature", "lmax": 2, "correlation": 2},
    {"product": "cp-all", "lmax": 1, "lmax_hidden": 1},
    {"zbl": True, "num_layers": 3, "lmax_hidden": 2},
    {"num_layers": 1, "lmax_hidden": 0, "radial": "spline"},
    {"lmax_hidden": 0},
]
"""Options whose derivatives are computed by hand."""

pytestmark = pytest.mark.skipif(not usable(), reason="the compiled kernels are not installed")


def potential(**options: object) -> Potential:
    torch.manual_seed(5)
    config = PolyadConfig(species=SPECIES, num_channels=12, cutoff=4.0, **options)  # type: ignore[arg-type]
    return Potential(Polyad(config), {1: -13.0, 6: -1000.0, 8: -2000.0}).double().requires_grad_(False).eval()


def graph(dtype: torch.dtype = torch.float64) -> AtomGraph:
    crystal = bulk("C", cubic=True)
    crystal.rattle(0.1, seed=3)
    close = molecule("CH3CH2OH")
    close.rattle(0.2, seed=4)
    structures = [close, Atoms("O"), crystal, Atoms("H2", [[0, 0, 0], [0, 0, 0.3]])]
    for atoms in structures[:2]:
        atoms.cell = np.eye(3) * 20.0
    structures[3].cell = np.eye(3) * 9.0
    return collate([build_graph(atoms, 4.0, dtype=dtype) for atoms in structures])


@pytest.mark.parametrize("options", COVERED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_autograd(options: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    p, g = potential(**options).to(dtype), graph(dtype)
    operands = (g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())
    assert p.model.energy_and_gradient(*operands) is not None
    features = p.model.energy_and_gradient(*operands)[0]["node_features"]
    by_hand = p(g, stress=True)
    monkeypatch.setattr(p.model, "energy_and_gradient", lambda *_, **__: None)
    recorded = p(g, stress=True)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for key, value in recorded.items():
        assert torch.allclose(by_hand[key], value, rtol=0, atol=tolerance * float(value.abs().max())), key
    assert torch.allclose(features, p.model(*operands)["node_features"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options", [{"product": "cg", "lmax": 1}, {"correlation": 1}, {"correlation": 4, "lmax": 2}]
)
def test_leaves_the_rest_to_autograd(options: dict) -> None:
    p, g = potential(**options), graph()
    operands = (g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())
    assert p.model.energy_and_gradient(*operands) is None
    assert torch.isfinite(p(g)["forces"]).all()


def test_positions_that_learn_are_left_to_autograd() -> None:
    p, g = potential(), graph()
    operands = (g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())
    assert p.model.energy_and_gradient(*operands[:3], operands[3].requires_grad_()) is None


def test_no_edges() -> None:
    p = potential(zbl=True)
    g = build_graph(Atoms("CO", [[0, 0, 0], [0, 0, 30.0]]), 4.0)
    output = p(g)
    assert output["forces"].shape == (2, 3)
    assert not output["forces"].any()


def test_repulsion_and_its_gradient() -> None:
    module = ZBLRepulsion(SPECIES, 4.0).double()
    g = graph()
    species = torch.tensor([SPECIES.index(int(z)) for z in g.atomic_numbers])
    vectors = g.edge_vectors().requires_grad_()
    expected = module(species, g.senders, g.receivers, vectors)
    (slope,) = torch.autograd.grad(expected.sum(), vectors)
    energy, gradient = module.energy_and_gradient(species, g.senders, g.receivers, vectors.detach())
    assert torch.allclose(energy, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient, slope, rtol=1e-11, atol=1e-11)
    assert float(slope.abs().max()) > 10.0
