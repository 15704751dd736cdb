"""From pairs of atoms to a Hessian: the pairs of a head, and the matrix that its terms make.

In a periodic cell every image of a pair is a pair of its own here; they meet only in the matrix, the
Hessian at the Gamma point.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mlip.graph import AtomGraph
from mlip.neighbors import neighbor_list
from mlip.nn.hessian_head import HessianTerms, Pairs

LARGE: Final = 256
"""Atoms of a molecule from which on its pairs are found with cells instead of one by one."""

TINY: Final = 1e-12
"""Added to the diagonal of the Laplacian, relative to its largest element."""

NUMBERS_AT_ONCE: Final = 4_000_000
"""Numbers in the products of internal coordinates that are made together: bounds memory."""


def find_pairs(
    graph: AtomGraph, cutoff: float, *, wanted: Bool[Tensor, " structures"] | None = None
) -> Pairs:
    """Ordered pairs of atoms closer than the cutoff, images included, sorted by receiver.

    Args:
        graph: Structures; its edges play no part.
        cutoff: Å.
        wanted: Structures whose pairs are wanted; all by default.
    """
    counts = graph.atoms_per_structure
    starts = torch.cumsum(counts, 0) - counts
    by_cells = graph.pbc.any(dim=1) | (counts > LARGE)
    chosen = torch.ones_like(by_cells) if wanted is None else wanted.to(by_cells.device)
    senders, receivers, vectors = _pairs_of_molecules(graph, cutoff, starts, counts, chosen & ~by_cells)
    special = (chosen & by_cells).nonzero()[:, 0].tolist()
    if not special:
        return Pairs(senders, receivers, vectors)
    parts = [(senders, receivers, vectors)]
    for s in special:
        parts.append(_pairs_by_cells(graph, cutoff, s, int(starts[s]), int(counts[s])))
    senders, receivers, vectors = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.argsort(receivers, stable=True)
    return Pairs(senders[order], receivers[order], vectors[order])


def _pairs_of_molecules(
    graph: AtomGraph, cutoff: float, starts: Tensor, counts: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Every atom with every other of its structure, then those that are near."""
    atoms = chosen.index_select(0, graph.batch).nonzero()[:, 0]
    structure = graph.batch.index_select(0, atoms)
    each = counts.index_select(0, structure)
    receivers = torch.repeat_interleave(atoms, each)
    first = torch.cumsum(each, 0) - each
    within = torch.arange(receivers.shape[0], device=atoms.device) - torch.repeat_interleave(first, each)
    senders = torch.repeat_interleave(starts.index_select(0, structure), each) + within
    vectors = graph.positions.index_select(0, senders) - graph.positions.index_select(0, receivers)
    near = ((vectors.square().sum(dim=1) < cutoff**2) & (senders != receivers)).nonzero()[:, 0]
    return senders[near], receivers[near], vectors[near]


def _pairs_by_cells(
    graph: AtomGraph, cutoff: float, structure: int, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    positions, cell = graph.positions[start : start + count], graph.cell[structure]
    senders, receivers, shifts = (
        torch.from_numpy(array).to(positions.device)
        for array in neighbor_list(
            positions.detach().double().cpu().numpy(),
            cell.detach().double().cpu().numpy(),
            np.asarray(graph.pbc[structure].cpu()),
            cutoff,
        )
    )
    vectors = positions[senders] - positions[receivers] + shifts.to(cell.dtype) @ cell
    return senders + start, receivers + start, vectors


def assemble(
    terms: HessianTerms, pairs: Pairs, graph: AtomGraph
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """The Hessian of each structure, eV/Å², symmetric; that of a structure without pairs is zero.

    Args:
        terms: From the model's head.
        pairs: Those that the terms belong to.
        graph: Their structures.
    """
    counts = graph.atoms_per_structure
    squares = counts.square()
    starts = torch.cumsum(counts, 0) - counts
    within = torch.arange(graph.num_atoms, device=counts.device) - starts.index_select(0, graph.batch)
    first = torch.cumsum(squares, 0) - squares
    row = first.index_select(0, graph.batch) + within * counts.index_select(0, graph.batch)
    blocks = terms.blocks.new_zeros(int(squares.sum()), 9)
    i, j = pairs.receivers, pairs.senders
    pair = _balanced(terms, pairs, graph, within)
    turned = pair.transpose(1, 2)
    own = 0.5 * (pair + turned).reshape(-1, 9)
    places = [row[i] + within[j], row[j] + within[i], row[i] + within[i], row[j] + within[j]]
    blocks = blocks.index_add(
        0, torch.cat(places), torch.cat([-pair.reshape(-1, 9), -turned.reshape(-1, 9), own, own])
    )
    blocks = _add_coordinates(blocks, terms, pairs, row, within)
    return [
        _symmetric(part.view(count, count, 3, 3).transpose(1, 2).reshape(3 * count, 3 * count))
        for part, count in zip(blocks.split(squares.tolist()), counts.tolist(), strict=True)
    ]


def _symmetric(matrix: Tensor) -> Tensor:
    """Symmetric to the last digit, whatever the order of the sums."""
    return 0.5 * (matrix + matrix.T)


def _balanced(
    terms: HessianTerms, pairs: Pairs, graph: AtomGraph, within: Int[Tensor, " atoms"]
) -> Float[Tensor, "pairs 3 3"]:
    r"""Blocks whose antisymmetric parts add up to zero on every atom.

    With axial vectors $a_{ij}$ of the antisymmetric parts, $a_{ij} - a_{ji}$ is a current from i to j. It
    is changed by $w_{ij} (\phi_i - \phi_j)$, the least change in the norm $\sum |\cdot|^2 / w$ that leaves
    no excess on any atom: $\phi$ solves the Laplace equation of the network with conductances w. Connected
    parts are solved for independently, so that molecules far apart do not know of each other.
    """
    i, j, weight = pairs.receivers, pairs.senders, terms.weight.double()
    blocks = terms.blocks.double()
    axial = _axial(blocks)
    excess = axial.new_zeros(graph.num_atoms, 3).index_add(0, i, axial).index_add(0, j, axial, alpha=-1)
    counts, structure = graph.atoms_per_structure, graph.batch
    most = int(counts.max())
    conductance = weight.new_zeros(graph.num_structures, most, most)
    conductance = conductance.index_put((structure[i], within[i], within[j]), weight, accumulate=True)
    conductance = conductance + conductance.transpose(1, 2)
    degree = conductance.sum(dim=2)
    # A connected part fixes its potential up to a constant, which plays no role: any small number decides it.
    tiny = TINY * degree.detach().amax(dim=1, keepdim=True).clamp(min=1.0)
    padding = (torch.arange(most, device=structure.device) >= counts.unsqueeze(1)).to(degree.dtype)
    laplacian = torch.diag_embed(degree + padding) - conductance
    factor = torch.linalg.cholesky(laplacian + torch.diag_embed(tiny.expand_as(degree)))
    right = excess.new_zeros(graph.num_structures, most, 3).index_put((structure, within), excess)
    solution = torch.cholesky_solve(right, factor)
    # What the small number has left undone.
    solution = solution + torch.cholesky_solve(right - laplacian @ solution, factor)
    potential = solution[structure, within]
    change = weight.unsqueeze(1) * (potential[i] - potential[j])
    return (blocks - _cross_matrix(change)).to(terms.blocks.dtype)


def _axial(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3"]:
    """The vector a with $a \\times x$ the product of the antisymmetric part with x."""
    odd = 0.5 * (matrices - matrices.transpose(1, 2))
    return torch.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], dim=1)


def _cross_matrix(v: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """The matrix of the cross product with v."""
    zero = torch.zeros_like(v[:, 0])
    rows = [zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def _add_coordinates(
    blocks: Float[Tensor, "blocks 9"], terms: HessianTerms, pairs: Pairs, row: Tensor, within: Tensor
) -> Float[Tensor, "blocks 9"]:
    """Products of the internal coordinates of each atom, whose own arm is minus the sum of the others."""
    if terms.near.shape[0] == 0:
        return blocks
    centre, other = pairs.receivers[terms.near], pairs.senders[terms.near]
    atoms, number = row.shape[0], torch.bincount(centre, minlength=row.shape[0])
    most = int(number.max()) + 1
    place = torch.arange(len(centre), device=centre.device) - (torch.cumsum(number, 0) - number)[centre] + 1
    members = torch.arange(atoms, device=centre.device).unsqueeze(1).repeat(1, most)
    members[centre, place] = other
    there = torch.arange(most, device=centre.device) <= number.unsqueeze(1)
    arms = terms.arms.new_zeros(atoms, most, *terms.arms.shape[1:]).index_put((centre, place), terms.arms)
    arms = torch.cat([-arms.sum(dim=1, keepdim=True), arms[:, 1:]], dim=1).flatten(1, 2)
    at_once = max(1, NUMBERS_AT_ONCE // (9 * most * most))
    nowhere = blocks.shape[0]
    blocks = torch.cat([blocks, blocks.new_zeros(1, 9)])
    for start in range(0, atoms, at_once):
        part = slice(start, start + at_once)
        who, both = members[part], there[part].unsqueeze(2) & there[part].unsqueeze(1)
        product = torch.bmm(torch.bmm(arms[part], terms.metric[part]), arms[part].transpose(1, 2))
        product = product.view(-1, most, 3, most, 3).transpose(2, 3).reshape(-1, 9)
        where = row[who].unsqueeze(2) + within[who].unsqueeze(1)
        blocks = blocks.index_add(0, torch.where(both, where, nowhere).view(-1), product)
    return blocks[:nowhere]
