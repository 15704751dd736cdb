"""Symmetric many-body products: all independent couplings of several copies of one set of features."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.errors import InputError
from mlip.o3.clebsch_gordan import clebsch_gordan
from mlip.o3.constants import ConstantModule

_MAX_CORRELATION = 3


@functools.cache
def symmetric_coupling(lmax_in: int, degree: int, correlation: int) -> Float[Tensor, "paths m ..."]:
    r"""Basis of the equivariant maps from $A \otimes \dots \otimes A$ (`correlation` times) to one degree.

    A has degrees 0 … lmax_in with natural parity and the result has natural parity too; odd-sum
    intermediate couplings are included. The tensors $U_{p, M, i_1 \dots i_\nu}$ are symmetric in
    $i_1 \dots i_\nu$ and orthogonal, $\langle U_p, U_q\rangle = (2L+1)\,\delta_{pq}$; each couples one
    multiset of input degrees (which come in ascending lexicographic order). Cached: do not modify.

    Args:
        lmax_in: Largest degree of A.
        degree: L, degree of the result.
        correlation: $\nu$ = 1, 2 or 3.

    Returns:
        Shape (paths, 2L+1, d, …, d) with $d = (l_{max}+1)^2$, float64.

    Raises:
        InputError: If a degree is negative or the correlation is not 1, 2 or 3.

    Source: Batatia et al. 2022, arXiv:2206.07697 (generalised Clebsch–Gordan coefficients); the
        orthogonal symmetric basis by Gram–Schmidt over all coupling trees.
    """
    _check(lmax_in, degree, correlation)
    dimension = (lmax_in + 1) ** 2
    basis: list[Tensor] = []
    for degrees in itertools.combinations_with_replacement(range(lmax_in + 1), correlation):
        if sum(degrees) % 2 != degree % 2:
            continue
        found: list[Tensor] = []
        for tree in _coupling_trees(degrees, degree):
            full = tree.new_zeros(2 * degree + 1, *[dimension] * correlation)
            full[(slice(None), *(slice(l * l, (l + 1) ** 2) for l in degrees))] = tree
            vector = _symmetrise(full).flatten()
            for _ in range(2):  # twice is enough
                for other in found:
                    vector = vector - (vector @ other) * other
            length = float(vector.norm())
            if length > 1e-7:
                found.append(vector / length)
        basis.extend(found)
    shape = (len(basis), 2 * degree + 1, *[dimension] * correlation)
    if not basis:
        return torch.zeros(shape, dtype=torch.float64)
    tensor = torch.stack(basis).reshape(shape) * math.sqrt(2 * degree + 1)
    return torch.where(tensor.abs() < 1e-13, torch.zeros_like(tensor), tensor)


def _check(lmax_in: int, degree: int, correlation: int) -> None:
    if lmax_in < 0 or degree < 0:
        raise InputError(f"degrees are {lmax_in} (in) and {degree} (out) but none may be negative")
    if not 1 <= correlation <= _MAX_CORRELATION:
        raise InputError(f"`correlation` is {correlation} but must be 1, 2 or 3")


def _coupling_trees(degrees: tuple[int, ...], degree: int) -> list[Tensor]:
    """Tensors (2L+1, 2l1+1, …) of every way to couple the degrees one after the other to L."""
    trees = [(degrees[0], torch.eye(2 * degrees[0] + 1, dtype=torch.float64))]
    for l in degrees[1:]:
        trees = [
            (l3, torch.tensordot(clebsch_gordan(left, l, l3).permute(2, 1, 0), tree, dims=1).movedim(1, -1))
            for left, tree in trees
            for l3 in range(abs(left - l), left + l + 1)
        ]
    return [tree for l, tree in trees if l == degree]


def _symmetrise(tensor: Tensor) -> Tensor:
    """Mean over all permutations of the indices after the first."""
    orders = list(itertools.permutations(range(1, tensor.ndim)))
    return torch.stack([tensor.permute(0, *order) for order in orders]).mean(0)


class SymmetricContraction(ConstantModule):
    r"""The many-body product of MACE, complete in natural parity.

    $B_{n,M,c} = \sum_{\nu} \sum_p W^{\nu}_{z_n,p,c} \sum_{i_1 \dots i_\nu} U^{\nu}_{p,M,i_1 \dots i_\nu}
    A_{n,i_1,c} \cdots A_{n,i_\nu,c}$ with the symmetric couplings U of `symmetric_coupling`.

    U is symmetric, so each distinct monomial of A is formed once, order by order (816 instead of 4096
    triples for lmax 3), even and odd ones apart because a degree needs only one of the two; the rest is
    one matrix product per parity, then the species' weights.

    Attributes:
        weights: Parameters, one per output degree: (species, paths of all orders ascending, channels).

    Args:
        lmax_in: Largest degree of A.
        lmax_out: Largest degree of the result.
        correlation: Largest number of factors, 1 to 3.
        num_channels: Channels.
        num_species: Number of species.

    Raises:
        InputError: If an argument is out of range.

    Source: Batatia et al. 2022, arXiv:2206.07697, eq. 10 and 11.
    """

    def __init__(
        self, lmax_in: int, lmax_out: int, correlation: int, num_channels: int, num_species: int
    ) -> None:
        super().__init__()
        _check(lmax_in, lmax_out, correlation)
        if num_channels < 1 or num_species < 1:
            raise InputError(
                f"`num_channels` is {num_channels} and `num_species` is {num_species} but both must be "
                "positive"
            )
        self.lmax_in, self.lmax_out, self.correlation = lmax_in, lmax_out, correlation
        self.num_species = num_species
        self.num_paths = tuple(
            tuple(symmetric_coupling(lmax_in, degree, order).shape[0] for order in range(1, correlation + 1))
            for degree in range(lmax_out + 1)
        )
        self.weights = nn.ParameterList()
        for counts in self.num_paths:
            scale = torch.cat([torch.full((count, 1), 1 / max(1, count)) for count in counts])
            self.weights.append(nn.Parameter(torch.randn(num_species, len(scale), num_channels) * scale))
        for parity, monomials in enumerate(_monomial_indices(lmax_in, correlation)):
            degrees = range(parity, lmax_out + 1, 2)
            rows = [_coupling_rows(lmax_in, degree, correlation, monomials) for degree in degrees]
            if rows:
                self.register_constant(f"coupling_{parity}", torch.cat(rows))

    def extra_repr(self) -> str:
        """Degrees, correlation and paths per order."""
        return f"{self.lmax_in} -> {self.lmax_out}, correlation {self.correlation}, paths {self.num_paths}"

    def forward(
        self, features: Float[Tensor, "nodes d_in channels"], species_index: Int[Tensor, " nodes"]
    ) -> Float[Tensor, "nodes d_out channels"]:
        """Contract each node's features with themselves.

        Args:
            features: A, degrees 0 … lmax_in.
            species_index: 0 … num_species - 1 for each node.

        Raises:
            InputError: If `features` has the wrong number of components.
        """
        if features.ndim != 3 or features.shape[1] != (self.lmax_in + 1) ** 2:
            raise InputError(
                f"`features` has shape {tuple(features.shape)} but must be "
                f"(nodes, {(self.lmax_in + 1) ** 2}, channels)"
            )
        coupled = [
            self.constant(f"coupling_{parity}", features) @ torch.cat(monomials, dim=1)
            for parity, monomials in enumerate(_monomials(features, self.lmax_in, self.correlation))
            if parity <= self.lmax_out
        ]
        results, start = [], [0, 0]
        for degree, weights in enumerate(self.weights):
            parity, size = degree % 2, weights.shape[1] * (2 * degree + 1)
            block = coupled[parity][:, start[parity] : start[parity] + size]
            start[parity] += size
            block = block.unflatten(1, (weights.shape[1], 2 * degree + 1))
            results.append((block * weights[species_index].unsqueeze(2)).sum(1))
        return torch.cat(results, dim=1)


def _coupling_rows(
    lmax_in: int, degree: int, correlation: int, monomials: list[tuple[int, ...]]
) -> Float[Tensor, "rows monomials"]:
    """Couplings of all orders to one degree as rows over distinct monomials."""
    dimension = (lmax_in + 1) ** 2
    blocks = []
    for order in range(1, correlation + 1):
        coupling = symmetric_coupling(lmax_in, degree, order).flatten(2)
        block = coupling.new_zeros(*coupling.shape[:2], len(monomials))
        for column, indices in enumerate(monomials):
            if len(indices) == order:
                flat = sum(i * dimension**place for place, i in enumerate(indices))
                block[:, :, column] = len(set(itertools.permutations(indices))) * coupling[:, :, flat]
        blocks.append(block)
    return torch.cat(blocks).flatten(0, 1)


def _monomials(features: Tensor, lmax: int, correlation: int) -> tuple[list[Tensor], list[Tensor]]:
    """Distinct monomials of even and of odd degree sum, in blocks (nodes, monomials, channels)."""
    blocks = [features[:, l * l : (l + 1) ** 2] for l in range(lmax + 1)]
    e = torch.cat(blocks[0::2], dim=1)
    o = torch.cat(blocks[1::2], dim=1) if lmax > 0 else e[:, :0]
    even, odd = [e], [o]
    if correlation > 1:
        ee, oo = _grow(e, e, 1), _grow(o, o, 1)
        even += [ee, oo]
        odd += [_outer(e, o)]
        if correlation > 2:
            even += [_grow(ee, e, 2), _outer(e, oo)]
            odd += [_outer(ee, o), _grow(oo, o, 2)]
    return even, odd


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)


def _grow(monomials: Tensor, components: Tensor, order: int) -> Tensor:
    """Monomials of one order more: component k times those whose last component is at most k."""
    if components.shape[1] == 0:
        return components
    terms = [
        monomials[:, : math.comb(k + order, order)] * components[:, k : k + 1]
        for k in range(components.shape[1])
    ]
    return torch.cat(terms, dim=1)


def _monomial_indices(lmax: int, correlation: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Component indices of each entry of `_monomials`, in its order."""
    components: tuple[list[tuple[int, ...]], ...] = ([], [])
    for l in range(lmax + 1):
        components[l % 2].extend((i,) for i in range(l * l, (l + 1) ** 2))
    e, o = components

    def outer(left: list[tuple[int, ...]], right: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [a + b for a in left for b in right]

    def grow(
        monomials: list[tuple[int, ...]], last: list[tuple[int, ...]], order: int
    ) -> list[tuple[int, ...]]:
        return [a + b for k, b in enumerate(last) for a in monomials[: math.comb(k + order, order)]]

    even, odd = list(e), list(o)
    if correlation > 1:
        ee, oo = grow(e, e, 1), grow(o, o, 1)
        even += ee + oo
        odd += outer(e, o)
        if correlation > 2:
            even += grow(ee, e, 2) + outer(e, oo)
            odd += outer(ee, o) + grow(oo, o, 2)
    return even, odd
