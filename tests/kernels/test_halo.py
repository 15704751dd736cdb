"""Features of copies: the operator and its adjoint, and a model that computes a part of a system."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk

from mlip.kernels.halo import copies, halo
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph

OWNER = torch.tensor([0, 1, 2, 1, 1, 0])


def test_rows_of_copies_are_those_of_their_owners() -> None:
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    with copies(OWNER):
        torch.testing.assert_close(halo(x, 6), x[OWNER], rtol=0, atol=0)


def test_adjoint() -> None:
    """<halo x, g> = <x, halo_adjoint g>, and each is the other's derivative, to second order."""
    x = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, 1, 2, dtype=torch.float64, requires_grad=True)
    with copies(OWNER):
        there = (halo(x, 6) * g).sum()
        back = (x * torch.ops.mlip.halo_adjoint(g, 3)).sum()
        torch.testing.assert_close(there, back)
        assert torch.autograd.gradcheck(lambda t: halo(t, 6), x)
        assert torch.autograd.gradgradcheck(lambda t: halo(t, 6), x)
        assert torch.autograd.gradcheck(lambda t: torch.ops.mlip.halo_adjoint(t, 3), g)


def test_no_copies_no_exchange() -> None:
    x = torch.randn(3, 1, 2)
    assert torch.equal(halo(x, 3), x)


@pytest.mark.parametrize("owner", [None, OWNER[:5], OWNER + 1])
def test_copies_of_nobody_knows_whom_are_refused(owner: torch.Tensor | None) -> None:
    x = torch.randn(3, 1, 2)
    if owner is None:
        with pytest.raises(RuntimeError, match="whose copies"):
            halo(x, 6)
        return
    with copies(owner), pytest.raises(RuntimeError, match="whose copies"):
        halo(x, 6)


@pytest.mark.parametrize("product", ["cp", "cg"])
def test_images_as_copies(product: str) -> None:
    """A crystal whose images are atoms of their own has the energies and gradients of the crystal."""
    torch.manual_seed(0)
    config = PolyadConfig(
        species=(6, 14),
        cutoff=4.0,
        num_channels=3,
        num_layers=3,
        lmax=2,
        num_knots=6,
        product=product,
        zbl=True,
    )  # type: ignore[arg-type]
    model = Polyad(config).double().requires_grad_(False)
    atoms = bulk("SiC", "zincblende", a=4.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    graph = build_graph(atoms, 4.0)
    images = torch.cat([graph.senders[:, None], graph.shifts.long()], dim=1)
    home = (graph.shifts == 0).all(1)
    unique, index = images[~home].unique(dim=0, return_inverse=True)
    count = graph.num_atoms
    senders = graph.senders.clone()
    senders[~home] = count + index
    owner = torch.cat([torch.arange(count), unique[:, 0]])

    results = []
    for whose, num_owned in ((graph.senders, None), (senders, count)):
        vectors = graph.edge_vectors().requires_grad_()
        numbers = graph.atomic_numbers if num_owned is None else graph.atomic_numbers[owner]
        with copies(owner):
            energy = model(numbers, whose, graph.receivers, vectors, num_owned=num_owned)["node_energy"]
            (gradient,) = torch.autograd.grad(energy.sum(), vectors)
        results.append((energy.detach(), gradient))
    for got, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
