"""Exporters and compilers see each kernel as one opaque operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from mlip.graph import AtomGraph
from mlip.kernels import library
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph

pytestmark = pytest.mark.usefixtures("compiled")


def small_model() -> Polyad:
    torch.manual_seed(0)
    config = PolyadConfig(species=(1, 8), cutoff=4.0, num_channels=4, lmax=2, num_knots=8, radial_width=8)
    return Polyad(config).double().eval().requires_grad_(False)


def graph_of(count: int) -> AtomGraph:
    positions = torch.rand(count, 3, generator=torch.Generator().manual_seed(count)) * 4
    return build_graph(Atoms([8, 1, 1, 8, 1][:count], positions.numpy()), 4.0)


def operators(graph: torch.fx.Graph) -> set[str]:
    """Names of the package's operators in a graph."""
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return {
        target.removeprefix("mlip.").removesuffix(".default")
        for target in targets
        if target.startswith("mlip.")
    }


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_energy_and_forces(verified: bool) -> None:
    """Traced with symbolic shapes, also where the kernels are first used inside the tracing."""
    model, graph = small_model(), graph_of(5)
    library.usable.cache_clear()
    if verified:
        library.usable()

    def energy_and_gradient(numbers: Tensor, senders: Tensor, receivers: Tensor, vectors: Tensor) -> Any:
        vectors = vectors.requires_grad_()
        energy = model(numbers, senders, receivers, vectors)["node_energy"]
        return energy.detach(), torch.autograd.grad(energy.sum(), vectors)[0]

    def operands(graph: AtomGraph) -> tuple[Tensor, ...]:
        return graph.atomic_numbers, graph.senders, graph.receivers, graph.edge_vectors()

    traced = make_fx(energy_and_gradient, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
        *operands(graph)
    )
    kernels = {"message", "sphere_product", "edge_basis"}
    assert operators(traced.graph) == kernels | {f"{name}_backward" for name in kernels} | {
        "linear",
        "project",
    }
    for other in (graph, graph_of(4)):
        for got, expected in zip(
            traced(*operands(other)), energy_and_gradient(*operands(other)), strict=True
        ):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_export() -> None:
    model, graph = small_model(), graph_of(5)
    atoms, edges = torch.export.Dim("atoms", min=2, max=10000), torch.export.Dim("edges", min=2, max=100000)
    operands = (graph.atomic_numbers, graph.senders, graph.receivers, graph.edge_vectors())
    program = torch.export.export(
        model, operands, dynamic_shapes=({0: atoms}, {0: edges}, {0: edges}, {0: edges})
    )
    assert operators(program.graph) == {"message", "sphere_product", "edge_basis", "linear", "project"}
    other = graph_of(4)
    operands = (other.atomic_numbers, other.senders, other.receivers, other.edge_vectors())
    expected = model(*operands)["node_energy"]
    torch.testing.assert_close(program.module()(*operands)["node_energy"], expected, rtol=1e-12, atol=1e-12)
