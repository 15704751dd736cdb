"""From pairs of atoms to a Hessian: the pairs of a head, and the matrix that its terms make.

In a periodic cell every image of a pair is a pair of its own here; they meet only in the matrix, the
Hessian at the Gamma point.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mlip.graph import AtomGraph
from mlip.kernels.hessian_matrix import MatrixParts, balanced, matrices, places
from mlip.neighbors import neighbor_list
from mlip.nn.hessian_head import HessianTerms, Pairs

LARGE: Final = 256
"""Atoms of a molecule from which on its pairs are found with cells instead of one by one."""

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
    parts = [_pairs_of_molecules(graph, cutoff, starts, counts, chosen & ~by_cells)]
    special = (chosen & by_cells).nonzero()[:, 0].tolist()
    if not special:
        return parts[0]
    for s in special:
        parts.append(_pairs_by_cells(graph, cutoff, s, int(starts[s]), int(counts[s])))
    order = torch.argsort(torch.cat([part.receivers for part in parts]), stable=True)
    return Pairs(
        torch.cat([part.senders for part in parts])[order],
        torch.cat([part.receivers for part in parts])[order],
        torch.cat([part.vectors for part in parts])[order],
        torch.cat([part.shifts for part in parts])[order],
    )


def _pairs_of_molecules(
    graph: AtomGraph, cutoff: float, starts: Tensor, counts: Tensor, chosen: Tensor
) -> Pairs:
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
    return Pairs(senders[near], receivers[near], vectors[near], senders.new_zeros(near.shape[0], 3))


def _pairs_by_cells(graph: AtomGraph, cutoff: float, structure: int, start: int, count: int) -> Pairs:
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
    return Pairs(senders + start, receivers + start, vectors, shifts)


def assemble(
    terms: HessianTerms, pairs: Pairs, graph: AtomGraph
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """The Hessian of each structure, eV/Å², symmetric; that of a structure without pairs is zero.

    Args:
        terms: From the model's head.
        pairs: Those that the terms belong to.
        graph: Their structures.
    """
    parts = _parts(terms, pairs, graph)
    whole = matrices(parts)
    if whole is not None:
        return whole
    counts = graph.atoms_per_structure
    squares = counts.square()
    structure, within = places(counts)
    start = torch.cumsum(squares, 0) - squares
    row = start.index_select(0, structure) + within * counts.index_select(0, structure)
    nowhere = int(squares.sum())
    blocks = terms.metric.new_zeros(nowhere + 1, 9)
    for part in itertools.chain([_blocks_of_pairs(parts, pairs)], _products(terms, pairs, graph.num_atoms)):
        place = row[part.first] + within[part.second]
        blocks = blocks.index_add(0, torch.where(part.there, place, nowhere), part.values)
    found = [
        block.view(count, count, 3, 3).transpose(1, 2).reshape(3 * count, 3 * count)
        for block, count in zip(blocks[:nowhere].split(squares.tolist()), counts.tolist(), strict=True)
    ]
    # Symmetric to the last digit, whatever the order of the sums.
    return [0.5 * (matrix + matrix.T) for matrix in found]


def _parts(terms: HessianTerms, pairs: Pairs, graph: AtomGraph) -> MatrixParts:
    return MatrixParts(*terms, pairs.receivers, pairs.senders, graph.atoms_per_structure)


@dataclass(frozen=True)
class ImageBlocks:
    r"""Second derivatives of a periodic structure, image by image: what phonons need.

    $D(q) = \sum_S H(S) e^{2 \pi i q \cdot S}$ with q in reciprocal lattice vectors; the Hessian at the
    Gamma point is the sum over S.

    Attributes:
        first: Index of one atom, in the cell itself.
        second: Index of the other atom.
        shifts: Lattice shift of the other atom.
        blocks: Second derivatives of the energy per cell, eV/Å²; each (first, second, shift) once.
    """

    first: Int[Tensor, " blocks"]
    second: Int[Tensor, " blocks"]
    shifts: Int[Tensor, "blocks 3"]
    blocks: Float[Tensor, "blocks 3 3"]


def assemble_images(terms: HessianTerms, pairs: Pairs, graph: AtomGraph) -> ImageBlocks:
    """The Hessian of one structure, its images kept apart.

    Args:
        terms: From the model's head.
        pairs: Those that the terms belong to.
        graph: One structure.
    """
    keys, values = [], []
    pair = _blocks_of_pairs(_parts(terms, pairs, graph), pairs)
    for part in (pair, *_products(terms, pairs, graph.num_atoms, images=True)):
        key = torch.cat([part.first.unsqueeze(1), part.second.unsqueeze(1), part.shifts], dim=1)
        keys.append(key[part.there])
        values.append(part.values[part.there])
    unique, place = torch.unique(torch.cat(keys), dim=0, return_inverse=True)
    blocks = values[0].new_zeros(unique.shape[0], 9).index_add(0, place, torch.cat(values)).view(-1, 3, 3)
    return ImageBlocks(unique[:, 0], unique[:, 1], unique[:, 2:], blocks)


@dataclass(frozen=True)
class _Contribution:
    """Parts of blocks of atoms `first` (in the cell) and `second` (shifted), where `there`."""

    first: Int[Tensor, " parts"]
    second: Int[Tensor, " parts"]
    shifts: Int[Tensor, "parts 3"]
    """Empty unless asked for."""
    there: Bool[Tensor, " parts"]
    values: Float[Tensor, "parts 9"]


def _blocks_of_pairs(parts: MatrixParts, pairs: Pairs) -> _Contribution:
    i, j, shifts = pairs.receivers, pairs.senders, pairs.shifts
    block = balanced(parts)
    turned = block.transpose(1, 2)
    own = 0.5 * (block + turned)
    return _Contribution(
        torch.cat([i, j, i, j]),
        torch.cat([j, i, i, j]),
        torch.cat([shifts, -shifts, 0 * shifts, 0 * shifts]),
        torch.ones(4 * i.shape[0], dtype=torch.bool, device=i.device),
        torch.cat([-block, -turned, own, own]).reshape(-1, 9),
    )


def _products(
    terms: HessianTerms, pairs: Pairs, atoms: int, *, images: bool = False
) -> Iterator[_Contribution]:
    """Products of the internal coordinates of each atom, whose own arm is minus the sum of the others; of
    some atoms at a time."""
    near, given = terms.pairs.near, terms.pairs.arms
    if near.shape[0] == 0:
        return
    centre, other = pairs.receivers[near], pairs.senders[near]
    number = torch.bincount(centre, minlength=atoms)
    most = int(number.max()) + 1
    place = torch.arange(len(centre), device=centre.device) - (torch.cumsum(number, 0) - number)[centre] + 1
    members = torch.arange(atoms, device=centre.device).unsqueeze(1).repeat(1, most)
    members[centre, place] = other
    shifts = pairs.shifts.new_zeros(atoms, most, 3)
    shifts[centre, place] = pairs.shifts[near]
    there = torch.arange(most, device=centre.device) <= number.unsqueeze(1)
    arms = given.new_zeros(atoms, most, *given.shape[1:]).index_put((centre, place), given)
    arms = torch.cat([-arms.sum(dim=1, keepdim=True), arms[:, 1:]], dim=1).flatten(1, 2)
    at_once = max(1, NUMBERS_AT_ONCE // (9 * most * most))
    for start in range(0, atoms, at_once):
        part = slice(start, start + at_once)
        size = (len(members[part]), most, most)
        product = torch.bmm(torch.bmm(arms[part], terms.metric[part]), arms[part].transpose(1, 2))
        apart = shifts.new_zeros(0, 3)
        if images:
            apart = (shifts[part].unsqueeze(1) - shifts[part].unsqueeze(2)).reshape(-1, 3)
        yield _Contribution(
            members[part].unsqueeze(2).expand(size).reshape(-1),
            members[part].unsqueeze(1).expand(size).reshape(-1),
            apart,
            (there[part].unsqueeze(2) & there[part].unsqueeze(1)).reshape(-1),
            product.view(-1, most, 3, most, 3).transpose(2, 3).reshape(-1, 9),
        )
