"""Energy and gradient of the flagship model in one pass each way, for weights that stay as they are.

Autograd records every step before it can go back, which for a small molecule costs more than the arithmetic.
Here every block returns its result and its pullback, a function that takes the gradient of the result to that
of the input, as in reverse-mode differentiation by hand. The numbers are those of autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlip.kernels.edge_basis import edge_basis_backward_cpu, edge_basis_cpu
from mlip.kernels.linear import linear_cpu, project_cpu
from mlip.kernels.message import message_backward_cpu, message_cpu
from mlip.kernels.sphere_product import sphere_product_backward_cpu, sphere_product_cpu
from mlip.models.edges import Edges

if TYPE_CHECKING:
    from mlip.models.polyad import FactoredMessage, Layer, Polyad, Readout
    from mlip.nn.linear import EquivariantLinear
    from mlip.nn.node_product import SphereProduct


def linear(module: EquivariantLinear, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`EquivariantLinear` and its pullback."""
    matrices, transposed = module.matrices()
    return linear_cpu(x, matrices, transposed), lambda g: linear_cpu(g, transposed, matrices)


def messages(
    module: FactoredMessage, a: Tensor, edges: Edges, table: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """Messages at the points of a product, and their pullback to features, harmonics and radial basis."""
    operands = (a, edges.y, edges.beta, table, module.weight, edges.row, edges.senders, edges.receivers)

    def pullback(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ga, gy, gbeta, _ = message_backward_cpu(g, *operands, False)
        return ga, gy, gbeta

    return message_cpu(*operands, a.shape[0]), pullback


def factored_message(
    module: FactoredMessage, x: Tensor, edges: Edges, table: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """`FactoredMessage` and its pullback, to the gradients of features, harmonics and radial basis."""
    if module.scalars_in:
        return messages(module, x, edges, table)
    into = (module.to_points, module.to_points_transposed)
    out_of = (module.from_points, module.from_points_transposed)
    z, at_points = messages(module, project_cpu(x, *into), edges, table)

    def pullback(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ga, gy, gbeta = at_points(project_cpu(g, *reversed(out_of)))
        return project_cpu(ga, *reversed(into)), gy, gbeta

    return project_cpu(z, *out_of), pullback


def node_product(
    module: SphereProduct, a: Tensor, species: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`SphereProduct` and its pullback."""
    mixed, mix_pullback = linear(module.mix, a)
    operands = (mixed, module.scale, module.weight, module.to_points, module.from_points, species)

    def pullback(g: Tensor) -> Tensor:
        return mix_pullback(sphere_product_backward_cpu(g, *operands, False)[0])

    return sphere_product_cpu(*operands), pullback


def layer_step(
    layer: Layer, h: Tensor, species: Tensor, edges: Edges, *, first: bool
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor | None, Tensor, Tensor]]]:
    """A layer and its pullback, to the gradients of features, harmonics and radial basis.

    The features before the first layer depend on the species alone, so they need no gradient.
    """
    x, up = linear(layer.up, h)
    s, message = factored_message(layer.message, x, edges, layer.radial())  # type: ignore[arg-type]
    b, product = node_product(layer.products, s, species)  # type: ignore[arg-type]
    out, down = linear(layer.down, b)
    kept = (layer.skip.lmax + 1) ** 2
    scale = layer.skip_scale.index_select(0, species).unsqueeze(1)
    skipped, skip = linear(layer.skip, h.narrow(1, 0, kept) * scale)
    out.narrow(1, 0, kept).add_(skipped)

    def pullback(g: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        gx, gy, gbeta = message(product(down(g)))
        if first:
            return None, gy, gbeta
        gh = up(gx)
        gh.narrow(1, 0, kept).add_(skip(g.narrow(1, 0, kept)) * scale)
        return gh, gy, gbeta

    return out, pullback


def readout(module: Readout, scalars: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`Readout` and its pullback, from the gradient of every energy to that of the scalars."""
    channels = scalars.shape[1]
    energy = scalars @ module.linear / channels
    if not module.network:
        return energy, lambda g: (module.linear * (g / channels)).expand_as(scalars)
    root, width = math.sqrt(channels), module.out.shape[0]
    before = scalars @ module.hidden / root
    gate = torch.sigmoid(before)

    def pullback(g: Tensor) -> Tensor:
        slope = gate * (1 + before * (1 - gate)) * (module.out * (g / width))
        return torch.addmm(module.linear * (g / channels), slope, module.hidden.T, alpha=1 / root)

    return energy + (before * gate) @ module.out / width, pullback


def energy_and_gradient(
    model: Polyad, atomic_numbers: Tensor, senders: Tensor, receivers: Tensor, edge_vectors: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """What `Polyad.forward` returns, and the gradient of the sum of the node energies, (edges, 3), eV/Å."""
    config, basis = model.config, model.basis
    species = model.species_index.index_select(0, atomic_numbers)
    settings = (basis.polynomials, basis.cutoff, basis.num_intervals, config.lmax)
    y, beta, interval = edge_basis_cpu(edge_vectors, *settings)
    pair = species.index_select(0, receivers) * len(config.species) + species.index_select(0, senders)
    edges = Edges(y, beta, pair * basis.rows + interval, senders, receivers)
    h = model.embedding.index_select(0, species).unsqueeze(1)
    terms: list[Tensor] = []
    back: list[Any] = []
    for layer, read in zip(model.layers, model.readouts, strict=True):
        h, layer_back = layer_step(layer, h, species, edges, first=not back)  # type: ignore[arg-type]
        energy, read_back = readout(read, h.select(1, 0))  # type: ignore[arg-type]
        terms.append(energy)
        back.append((layer_back, read_back, h.shape))
    scale = y.new_tensor(config.energy_scale)
    gh: Tensor | None = None
    gy, gbeta = torch.zeros_like(y), torch.zeros_like(beta)
    for layer_back, read_back, shape in reversed(back):
        gh = y.new_zeros(shape) if gh is None else gh
        gh.select(1, 0).add_(read_back(scale))
        gh, layer_gy, layer_gbeta = layer_back(gh)
        gy += layer_gy
        gbeta += layer_gbeta
    gradient = edge_basis_backward_cpu(gy, gbeta, edge_vectors, *settings)
    energies = sum(terms[1:], terms[0]) * config.energy_scale
    if model.repulsion is not None:
        repelled, push = model.repulsion.energy_and_gradient(species, senders, receivers, edge_vectors)
        energies, gradient = energies + repelled, gradient + push
    return {"node_energy": energies, "node_features": h.select(1, 0)}, gradient
