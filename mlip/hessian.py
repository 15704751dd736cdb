"""Second derivatives of the energy of a potential: by differentiation, by finite differences, by its own
head.

All work on edge vectors: with `edge = x[sender] - x[receiver] + shift`, a displacement v of the atoms
changes the edges by `v[sender] - v[receiver]`, and a gradient on the edges is summed back to the atoms with
the same signs. Periodic images need no further care: the result is the Hessian at the Gamma point, the sum
over images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.graph import AtomGraph, collate
from mlip.hessian_assembly import ImageBlocks, assemble, assemble_images, find_pairs
from mlip.nn.hessian_head import HessianTerms, Pairs

if TYPE_CHECKING:
    from mlip.potential import Potential

HessianMethod = Literal["direct", "autograd", "finite-difference"]

EDGES_AT_ONCE: Final = {"cpu": 2048, "cuda": 65536}
"""Edges of all copies of a batch that are differentiated together: bounds memory and fills the machine."""

STENCIL: Final = ((-2.0, -1 / 12), (-1.0, 2 / 3), (1.0, -2 / 3), (2.0, 1 / 12))
"""Steps, and weights of forces: minus the central difference of fourth order."""

DISPLACEMENT: Final = {torch.float64: 1e-3, torch.float32: 2e-2}
"""Å; balances the error of the stencil against rounding of the forces."""


class Curvature:
    """The second derivative of the energy of a batch of structures as a linear map on displacements.

    Args:
        potential: Differentiated once here, and once more in each product.
        graph: The structures, of the potential's type and on its device, outside inference mode.
    """

    def __init__(self, potential: Potential, graph: AtomGraph) -> None:
        self._graph = graph
        with torch.enable_grad():
            self._vectors = graph.edge_vectors().detach().requires_grad_()
            node_energy = potential.model(
                graph.atomic_numbers, graph.senders, graph.receivers, self._vectors
            )["node_energy"]
            self._gradient = potential.edge_gradient(node_energy, self._vectors, create_graph=True)

    def product(self, displacements: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
        """Hessian times displacements, each structure by itself, eV/Å² times their unit."""
        graph, vectors, gradient = self._graph, self._vectors, self._gradient
        if not gradient.requires_grad:
            return torch.zeros_like(displacements)
        stretch = displacements.index_select(0, graph.senders) - displacements.index_select(
            0, graph.receivers
        )
        (change,) = torch.autograd.grad(gradient, vectors, stretch, retain_graph=True, allow_unused=True)
        result = torch.zeros_like(displacements)
        if change is None:
            return result
        return result.index_add(0, graph.senders, change).index_add(0, graph.receivers, change, alpha=-1)


def autograd_hessian(
    potential: Potential, graph: AtomGraph, *, edges_at_once: int | None = None
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """Exact second derivatives by differentiating twice, eV/Å².

    One product gives the same row of every structure. Small batches are copied so that several rows are
    computed together; `3 N / copies` products make the whole, N atoms in the largest structure.

    Args:
        potential: The potential.
        graph: See `Curvature`.
        edges_at_once: Bounds the number of copies, and with it memory; by default what suits the device.
    """
    rows = 3 * int(graph.atoms_per_structure.max())
    copies = min(rows, _copies(graph, edges_at_once))
    passes = -(-rows // copies)
    copies = -(-rows // passes)
    curvature = Curvature(potential, collate([graph] * copies))
    atoms = graph.num_atoms
    out = graph.positions.new_zeros(rows, atoms, 3)
    for first in range(0, rows, copies):
        number = min(copies, rows - first)
        unit = graph.positions.new_zeros(copies, atoms, 3)
        unit[:number] = _unit_displacements(graph, range(first, first + number))
        out[first : first + number] = curvature.product(unit.view(-1, 3)).view(copies, atoms, 3)[:number]
    return _symmetric_blocks(graph, out)


def finite_difference_hessian(
    potential: Potential,
    graph: AtomGraph,
    *,
    displacement: float | None = None,
    edges_at_once: int | None = None,
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """Central differences of fourth order of the forces, symmetrised, eV/Å².

    Edges stay those of the graph, so the energy must be smooth at the cutoff, as that of every model is.

    Args:
        potential: The potential.
        graph: See `Curvature`.
        displacement: Å; by default what suits the potential's type.
        edges_at_once: Bounds the structures computed together; by default what suits the device.
    """
    step = DISPLACEMENT[potential.dtype] if displacement is None else displacement
    rows = 3 * int(graph.atoms_per_structure.max())
    at_once = max(1, _copies(graph, edges_at_once) // len(STENCIL))
    out = graph.positions.new_zeros(rows, graph.num_atoms, 3)
    for first in range(0, rows, at_once):
        chosen = range(first, min(first + at_once, rows))
        unit = _unit_displacements(graph, chosen)
        moved = [
            dataclasses.replace(graph, positions=graph.positions + at * step * direction)
            for direction in unit
            for at, _ in STENCIL
        ]
        forces = potential(collate(moved))["forces"].view(len(chosen), len(STENCIL), -1, 3)
        weights = forces.new_tensor([weight / step for _, weight in STENCIL])
        out[first : first + len(chosen)] = torch.einsum("rsai,s->rai", forces, weights)
    return _symmetric_blocks(graph, out)


@torch.no_grad()
def direct_hessian(potential: Potential, graph: AtomGraph) -> list[Float[Tensor, "coordinates coordinates"]]:
    """The Hessian that the model's head reads off its features, eV/Å².

    Args:
        potential: Its model has a head for Hessians.
        graph: Of the potential's type and on its device.
    """
    terms, pairs = _terms(potential, graph)
    return assemble(terms, pairs, graph)


@torch.no_grad()
def direct_image_blocks(potential: Potential, graph: AtomGraph) -> ImageBlocks:
    """The same for one periodic structure, its images kept apart."""
    terms, pairs = _terms(potential, graph)
    return assemble_images(terms, pairs, graph)


def _terms(potential: Potential, graph: AtomGraph) -> tuple[HessianTerms, Pairs]:
    pairs = find_pairs(graph, potential.model.hessian_cutoff)
    edges = (graph.atomic_numbers, graph.senders, graph.receivers, graph.edge_vectors())
    return potential.model.hessian_terms(*edges, pairs)[1], pairs


def _copies(graph: AtomGraph, edges_at_once: int | None) -> int:
    limit = EDGES_AT_ONCE.get(graph.positions.device.type, 65536) if edges_at_once is None else edges_at_once
    return max(1, limit // max(1, graph.num_edges))


def _unit_displacements(graph: AtomGraph, rows: Sequence[int]) -> Float[Tensor, "rows atoms 3"]:
    """For each row a displacement of one coordinate in every structure that has it."""
    counts = graph.atoms_per_structure
    starts = torch.cumsum(counts, 0) - counts
    unit = graph.positions.new_zeros(len(rows), graph.num_atoms, 3)
    for k, row in enumerate(rows):
        unit[k, starts[counts > row // 3] + row // 3, row % 3] = 1.0
    return unit


def _symmetric_blocks(
    graph: AtomGraph, rows: Float[Tensor, "rows atoms 3"]
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """Row k of every structure, side by side, as one symmetric matrix for each structure."""
    counts = graph.atoms_per_structure.tolist()
    blocks = []
    for count, part in zip(counts, rows.split(counts, dim=1), strict=True):
        block = part[: 3 * count].reshape(3 * count, 3 * count)
        blocks.append(0.5 * (block + block.T))
    return blocks
