r"""From blocks of pairs of atoms and their internal coordinates to the Hessians of small structures.

With blocks $B_{ij}$ of ordered pairs, *balanced* as below, and internal coordinates of arms $g$ and metric M,

$$H_{ij} = -(B_{ij} + B_{ji}^T) + \sum_k g_{ki}^T M^k g_{kj}, \qquad g_{kk} = -\sum_{j \ne k} g_{kj},$$

and the diagonal is minus the sum of the rest of the row. That is symmetric only if the antisymmetric parts of
the blocks of each atom add up to nothing. With axial vectors $a_{ij}$ of these parts, $a_{ij} - a_{ji}$ is a
current from i to j. It is changed by $w_{ij} (\phi_i - \phi_j)$, the least change in the norm $\sum |\cdot|^2
/ w$ that leaves no excess on any atom: $\phi$ solves the Laplace equation of the network with conductances w.
Connected parts are solved for independently, so that molecules far apart do not know of each other.

Where nothing is differentiated a compiled kernel does all this; elsewhere torch.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.kernels.hessian_pairs import PairTerms
from mlip.kernels.library import MatrixShape, call, covers, usable

TINY: Final = 1e-12
"""Added to the diagonal of the Laplacian, relative to its largest element."""

LARGEST: Final = {"torch": 32, "compiled": 256}
"""Atoms of a structure up to which whole matrices are the fastest way."""


class MatrixParts(NamedTuple):
    """What Hessians are made of; pairs are sorted by receiver, atoms by structure."""

    terms: PairTerms
    """The weight of a pair is its conductance."""
    metric: Float[Tensor, "atoms coordinates coordinates"]
    receivers: Int[Tensor, " pairs"]
    senders: Int[Tensor, " pairs"]
    counts: Int[Tensor, " structures"]
    """Atoms of each structure."""


def matrices(parts: MatrixParts) -> list[Float[Tensor, "coordinates coordinates"]] | None:
    """The Hessian of each structure, eV/Å², exactly symmetric; None where one is too large for this way."""
    most = int(parts.counts.max())
    if most <= LARGEST["compiled"] and supported(parts) and usable():
        return compiled(parts)
    return reference(parts) if most <= LARGEST["torch"] else None


def supported(parts: MatrixParts) -> bool:
    """Whether the compiled CPU kernel covers these operands."""
    return covers(parts.terms.blocks) and not torch.is_grad_enabled()


def compiled(parts: MatrixParts) -> list[Float[Tensor, "coordinates coordinates"]]:
    """`matrices` by the kernel, which nothing can be differentiated through."""
    blocks, weight, near, arms = (t.contiguous() for t in parts.terms)
    metric, receivers, senders, counts = (t.contiguous() for t in parts[1:])
    atoms = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    pairs = torch.searchsorted(receivers, atoms)
    nears = torch.searchsorted(near, pairs)
    sizes = [9 * n * n for n in counts.tolist()]
    out = blocks.new_empty(sum(sizes))
    index = (t.data_ptr() for t in (atoms, pairs, nears, receivers, senders, near))
    shape = MatrixShape(len(sizes), arms.shape[2], 0, TINY, *index)
    call("hessian_matrix", blocks.dtype, shape, (blocks, weight, arms, metric, out))
    return [part.view(3 * n, 3 * n) for part, n in zip(out.split(sizes), counts.tolist(), strict=True)]


def reference(parts: MatrixParts) -> list[Float[Tensor, "coordinates coordinates"]]:
    """`matrices` by torch."""
    structure, within = places(parts.counts)
    most, coordinates = int(parts.counts.max()), parts.terms.arms.shape[2]
    atoms, structures = structure.shape[0], parts.counts.shape[0]
    i, j = parts.receivers, parts.senders
    block = balanced(parts)
    turned = block.transpose(1, 2)
    own = 0.5 * (block + turned)
    first, second = torch.cat([i, j, i, j]), torch.cat([j, i, i, j])
    table = block.new_zeros(structures * most * most, 9).index_add(
        0,
        (structure[first] * most + within[first]) * most + within[second],
        torch.cat([-block, -turned, own, own]).reshape(-1, 9),
    )
    whole = table.view(structures, most, most, 3, 3).transpose(2, 3).reshape(structures, 3 * most, 3 * most)

    centre, other = i[parts.terms.near], j[parts.terms.near]
    arms = parts.terms.arms.reshape(-1, 3 * coordinates)
    rest = -arms.new_zeros(atoms, 3 * coordinates).index_add(0, centre, arms)
    every = torch.arange(atoms, device=centre.device)
    place = torch.cat([centre * most + within[other], every * most + within])
    wide = arms.new_zeros(atoms * most, 3 * coordinates).index_add(0, place, torch.cat([arms, rest]))
    wide = wide.view(atoms, 3 * most, coordinates)
    products = torch.bmm(torch.bmm(wide, parts.metric), wide.transpose(1, 2)).flatten(1)
    more = products.new_zeros(structures, products.shape[1]).index_add(0, structure, products)
    whole = whole + more.view_as(whole)
    # Symmetric to the last digit, whatever the order of the sums.
    whole = 0.5 * (whole + whole.transpose(1, 2))
    return [matrix[: 3 * n, : 3 * n] for matrix, n in zip(whole, parts.counts.tolist(), strict=True)]


def balanced(parts: MatrixParts) -> Float[Tensor, "pairs 3 3"]:
    """Blocks whose antisymmetric parts add up to zero on every atom (see the head of this file)."""
    i, j, weight = parts.receivers, parts.senders, parts.terms.weight.double()
    structure, within = places(parts.counts)
    blocks = parts.terms.blocks.double()
    axial = _axial(blocks)
    excess = axial.new_zeros(structure.shape[0], 3).index_add(0, i, axial).index_add(0, j, axial, alpha=-1)
    most, structures = int(parts.counts.max()), parts.counts.shape[0]
    conductance = weight.new_zeros(structures, most, most)
    conductance = conductance.index_put((structure[i], within[i], within[j]), weight, accumulate=True)
    conductance = conductance + conductance.transpose(1, 2)
    degree = conductance.sum(dim=2)
    # Each connected part has its potential up to a constant, which plays no role: a small number decides it.
    tiny = TINY * degree.detach().amax(dim=1, keepdim=True).clamp(min=1.0)
    padding = (torch.arange(most, device=i.device) >= parts.counts.unsqueeze(1)).to(degree.dtype)
    laplacian = torch.diag_embed(degree + padding) - conductance
    factor = torch.linalg.cholesky(laplacian + torch.diag_embed(tiny.expand_as(degree)))
    right = excess.new_zeros(structures, most, 3).index_put((structure, within), excess)
    solution = torch.cholesky_solve(right, factor)
    # What the small number has left undone.
    solution = solution + torch.cholesky_solve(right - laplacian @ solution, factor)
    potential = solution[structure, within]
    change = weight.unsqueeze(1) * (potential[i] - potential[j])
    return (blocks - _cross_matrix(change)).to(parts.terms.blocks.dtype)


def places(counts: Int[Tensor, " structures"]) -> tuple[Int[Tensor, " atoms"], Int[Tensor, " atoms"]]:
    """Structure of each atom, and its place there."""
    structure = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    starts = torch.cumsum(counts, 0) - counts
    return structure, torch.arange(len(structure), device=counts.device) - starts.index_select(0, structure)


def _axial(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3"]:
    """The vector a with $a \\times x$ the product of the antisymmetric part with x."""
    odd = 0.5 * (matrices - matrices.transpose(1, 2))
    return torch.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], dim=1)


def _cross_matrix(v: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """The matrix of the cross product with v."""
    zero = torch.zeros_like(v[:, 0])
    rows = [zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero]
    return torch.stack(rows, dim=1).view(-1, 3, 3)
