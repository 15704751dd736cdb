from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlip.kernels.hessian_matrix import MatrixParts, balanced, compiled, matrices, reference
from mlip.kernels.hessian_pairs import PairTerms

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
COORDINATES = 5


def parts_of(ends: list[tuple[int, int]], counts: list[int], *, arms: bool = True) -> MatrixParts:
    """Random parts of structures with these pairs."""
    generator = torch.Generator().manual_seed(len(ends))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    receivers, senders = torch.tensor(sorted(ends), dtype=torch.int64).reshape(-1, 2).T
    near = torch.arange(0, len(ends) if arms else 0, 2)
    metric = normal(sum(counts), COORDINATES, COORDINATES)
    terms = PairTerms(
        blocks=normal(len(ends), 3, 3),
        weight=normal(len(ends)).square() + 0.01,
        near=near,
        arms=normal(len(near), 3, COORDINATES),
    )
    return MatrixParts(
        terms=terms,
        metric=metric + metric.transpose(1, 2),
        receivers=receivers,
        senders=senders,
        counts=torch.tensor(counts),
    )


def all_pairs(*groups: range) -> list[tuple[int, int]]:
    return [(i, j) for group in groups for i in group for j in group if i != j]


CASES = {
    "one molecule": (all_pairs(range(6)), [6]),
    "several": (all_pairs(range(3), range(4, 15)), [3, 1, 11]),
    "two far apart": (all_pairs(range(4), range(4, 7)), [7]),
    "images": ([*all_pairs(range(3)), *all_pairs(range(3)), (0, 0), (0, 0), (1, 1)], [3]),
    "no pairs": ([], [2, 1]),
    "many atoms": (all_pairs(range(40)), [40]),
}


def slow(parts: MatrixParts) -> Tensor:
    """The formula of the module for all structures in one matrix, pair by pair."""
    atoms = int(parts.counts.sum())
    out = torch.zeros(atoms, 3, atoms, 3, dtype=torch.float64)
    ends = list(zip(parts.receivers.tolist(), parts.senders.tolist(), strict=True))
    for (i, j), block in zip(ends, balanced(parts), strict=True):
        for a, b, value in ((i, j, block), (j, i, block.T)):
            out[a, :, b] -= value
            out[a, :, a] += value
    arms = torch.zeros(atoms, atoms, 3, COORDINATES, dtype=torch.float64)
    for k, pair in enumerate(parts.terms.near.tolist()):
        i, j = ends[pair]
        arms[i, j] += parts.terms.arms[k]
        arms[i, i] -= parts.terms.arms[k]
    out += torch.einsum("kiac,kcd,kjbd->iajb", arms, parts.metric, arms)
    return out.reshape(3 * atoms, 3 * atoms)


@pytest.mark.parametrize("case", CASES)
def test_torch_is_the_formula(case: str) -> None:
    parts = parts_of(*CASES[case])
    whole, found = slow(parts), reference(parts)
    scale = max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(torch.block_diag(*found), whole, rtol=0, atol=1e-11 * scale)
    for matrix in found:
        assert torch.equal(matrix, matrix.T)
        assert float(matrix.view(len(matrix), -1, 3).sum(dim=1).abs().max()) < 1e-11 * scale


@pytest.mark.parametrize("case", CASES)
def test_balanced_blocks_have_no_excess(case: str) -> None:
    parts = parts_of(*CASES[case])
    block = balanced(parts)
    odd = block - block.transpose(1, 2)
    total = torch.zeros(int(parts.counts.sum()), 3, 3, dtype=torch.float64)
    total = total.index_add(0, parts.receivers, odd).index_add(0, parts.senders, -odd)
    assert float(total.abs().max()) < 1e-11
    change = block - parts.terms.blocks
    torch.testing.assert_close(change, -change.transpose(1, 2))


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("arms", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_compiled_equals_torch(case: str, dtype: torch.dtype, arms: bool) -> None:
    parts = parts_of(*CASES[case], arms=arms)
    terms = PairTerms._make(t.to(dtype) if t.is_floating_point() else t for t in parts.terms)
    cast = parts._replace(terms=terms, metric=parts.metric.to(dtype))
    for one, other in zip(compiled(cast), reference(parts), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, one.T)
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.double(), other, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.usefixtures("compiled")
def test_gradients_go_through_torch() -> None:
    parts = parts_of(*CASES["several"])
    parts.terms.blocks.requires_grad_()
    with torch.no_grad():
        assert not any(m.requires_grad for m in matrices(parts) or [])
    found = matrices(parts)
    assert found is not None
    torch.stack([m.square().sum() for m in found]).sum().backward()
    assert float(parts.terms.blocks.grad.abs().sum()) > 0


def test_large_ones_are_left_to_others() -> None:
    with torch.no_grad():
        assert matrices(parts_of([(0, 1), (1, 0)], [300])) is None
