r"""Energy and one directional derivative of it, for weights that learn.

A loss of edge gradients $g_e = \partial E/\partial r_e$ (forces and stress are linear in them) passes back
$u_e = \partial L/\partial g_e$, and needs
$\partial_\theta \sum_e u_e \cdot g_e = \partial_\theta (D_u E)$: the gradient by the weights of a single
derivative of the energy along the displacements $u$ (B. A. Pearlmutter, Neural Computation 6, 147, 1994).
Differentiating the gradient itself, as autograd does, costs more. Values and tangents travel together, on a
first axis of length two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mlip.kernels.edge_basis import edge_basis_cpu, edge_basis_double_backward_cpu
from mlip.kernels.linear import project as project_nodes
from mlip.kernels.message import dual_message
from mlip.kernels.sphere_product import dual_sphere_product
from mlip.models.adjoint import energy_and_gradient
from mlip.models.edges import Edges

if TYPE_CHECKING:
    from mlip.models.polyad import Layer, Polyad, Readout
    from mlip.nn.linear import EquivariantLinear


def linear(module: EquivariantLinear, x: Tensor) -> Tensor:
    """A linear map of values and tangents alike."""
    mapped: Tensor = module(x.flatten(0, 1))
    return mapped.unflatten(0, x.shape[:2])


def project(x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
    """Values and tangents alike to or from the points of a factored product."""
    return project_nodes(x.flatten(0, 1), matrix, transposed).unflatten(0, x.shape[:2])


def layer_step(layer: Layer, h: Tensor, species: Tensor, edges: Edges) -> Tensor:
    """A layer; the features before the first depend on the species alone and have no tangent."""
    message: Any = layer.message
    a = linear(layer.up, h)
    if not message.scalars_in:
        a = project(a, message.to_points, message.to_points_transposed)
    operands = (
        edges.y,
        edges.beta,
        layer.radial(),
        message.weight,
        edges.row,
        edges.senders,
        edges.receivers,
    )
    s = dual_message(a, *operands)
    if not message.scalars_in:
        s = project(s, message.from_points, message.from_points_transposed)
    product: Any = layer.products
    points = (product.to_points, product.from_points, species)
    b = dual_sphere_product(linear(product.mix, s), product.scale, product.weight, *points)
    out = linear(layer.down, b)
    kept = (layer.skip.lmax + 1) ** 2
    skip = linear(layer.skip, h.narrow(2, 0, kept) * layer.skip_scale.index_select(0, species).unsqueeze(1))
    missing = (0, 0, 0, out.shape[2] - kept, 0, 0, 0, out.shape[0] - skip.shape[0])
    return out + torch.nn.functional.pad(skip, missing)


def readout(module: Readout, scalars: Tensor) -> Tensor:
    """Energies and their tangents, (2, atoms)."""
    channels = scalars.shape[2]
    energy = scalars @ module.linear / channels
    if not module.network:
        return energy
    before, tangent = (scalars @ module.hidden / math.sqrt(channels)).unbind(0)
    gate = torch.sigmoid(before)
    hidden = torch.stack([before * gate, tangent * gate * (1 + before * (1 - gate))])
    return energy + hidden @ module.out / module.out.shape[0]


def energy_and_tangent(model: Polyad, graph: Sequence[Tensor], along: Tensor) -> Tensor:
    """Node energies and their derivatives along displacements of the edges, (2, atoms), eV; the repulsion of
    cores, which has no weights, left out.

    Args:
        model: Its weights may be differentiated by.
        graph: Atomic numbers, senders, receivers, edge vectors.
        along: (edges, 3), in the units of what is wanted.
    """
    atomic_numbers, senders, receivers, vectors = graph
    config, basis = model.config, model.basis
    species = model.species_index.index_select(0, atomic_numbers)
    settings = (basis.polynomials, basis.cutoff, basis.num_intervals, config.lmax)
    with torch.no_grad():
        y, beta, interval = edge_basis_cpu(vectors, *settings)
        operands = (along, torch.zeros_like(y), torch.zeros_like(beta), vectors)
        dy, dbeta, _ = edge_basis_double_backward_cpu(*operands, *settings)
        pair = species.index_select(0, receivers) * len(config.species) + species.index_select(0, senders)
        row = pair * basis.rows + interval
    edges = Edges(torch.stack([y, dy]), torch.stack([beta, dbeta]), row, senders, receivers)
    h = model.embedding.index_select(0, species)[None, :, None]
    energy = y.new_zeros(2, species.shape[0])
    for layer, read in zip(model.layers, model.readouts, strict=True):
        h = layer_step(layer, h, species, edges)  # type: ignore[arg-type]
        energy = energy + readout(read, h.select(2, 0))  # type: ignore[arg-type]
    return energy * config.energy_scale


class _EnergyAndGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, model: Polyad, graph: tuple[Tensor, ...], *weights: Tensor) -> tuple[Tensor, ...]:
        output, gradient = energy_and_gradient(model, *graph)
        ctx.model, ctx.graph = model, graph
        ctx.save_for_backward(*weights)
        ctx.mark_non_differentiable(output["node_features"])
        return output["node_energy"], output["node_features"], gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_energy: Tensor, _: Tensor, g_gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        wanted = [w for w, need in zip(weights, needed, strict=True) if need]
        with torch.enable_grad():
            energy, tangent = energy_and_tangent(ctx.model, ctx.graph, g_gradient)
            total = (energy * g_energy).sum() + tangent.sum()
            grads = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        return (None, None, *(next(grads) if need else None for need in needed))


def differentiable_energy_and_gradient(
    model: Polyad, weights: Sequence[Tensor], graph: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], Tensor]:
    """`mlip.models.adjoint.energy_and_gradient`, whose results can be differentiated once, by the weights.

    Args:
        model: The model.
        weights: All its weights.
        graph: Atomic numbers, senders, receivers, edge vectors.
    """
    energy, features, gradient = _EnergyAndGradient.apply(model, graph, *weights)
    return {"node_energy": energy, "node_features": features}, gradient
