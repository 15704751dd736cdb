from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlip.kernels.hessian_pairs import PairEnds, pair_ends
from mlip.o3.cartesian import tensor_matrix

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}


def operands(atoms: int, pairs: int, channels: int) -> tuple[tuple[Tensor, ...], Tensor]:
    generator = torch.Generator().manual_seed(atoms + pairs + channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    ends = torch.randint(0, max(1, atoms), (2, pairs), generator=generator)
    direction = torch.nn.functional.normalize(normal(pairs, 3), dim=1)
    return (normal(atoms, 8, channels), *ends, direction, tensor_matrix()), normal(pairs, 2 + 11 * channels)


def slow_block(geometry: Tensor, i: int, j: int, u: Tensor, tensor: Tensor, coefficients: Tensor) -> Tensor:
    """The formula of the module, index by index."""
    k = geometry.shape[2]
    one, along, left, right, mine, other, products = coefficients.split([1, 1, 4 * k, 4 * k, k, k, k])
    vectors, tensors = geometry[:, :3], geometry[:, 3:]
    turned = torch.einsum("bam,b,nmc->nac", tensor, u, tensors)
    basis = torch.cat([vectors[i], vectors[j], turned[i], turned[j]], dim=1)
    p, q = basis @ left + along * u, basis @ right
    block = torch.outer(p, u) + torch.outer(u, q)
    block += torch.einsum("c,ac,bc->ab", products, vectors[i], vectors[j])
    block += torch.einsum("abm,mc,c->ab", tensor, tensors[i], mine)
    block += torch.einsum("abm,mc,c->ab", tensor, tensors[j], other)
    return block + one * torch.eye(3, dtype=u.dtype)


def test_torch_is_the_formula() -> None:
    (geometry, receivers, senders, direction, tensor), coefficients = operands(5, 12, 4)
    blocks = PairEnds(geometry, receivers, senders, direction, tensor, compiled=False).blocks(coefficients)
    for p in range(12):
        ends = int(receivers[p]), int(senders[p])
        expected = slow_block(geometry, *ends, direction[p], tensor, coefficients[p])
        torch.testing.assert_close(blocks[p], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("atoms", "pairs", "channels"), [(5, 20, 16), (3, 7, 5), (40, 300, 33), (2, 0, 4), (1, 1, 8)]
)
def test_compiled_equals_torch(dtype: torch.dtype, atoms: int, pairs: int, channels: int) -> None:
    given, coefficients = operands(atoms, pairs, channels)
    expected = PairEnds(*given, compiled=False)
    cast = [t.to(dtype) if t.is_floating_point() else t for t in given]
    got = PairEnds(*cast, compiled=True)
    for one, other in (
        (got.basis, expected.basis),
        (got.projections, expected.projections),
        (got.blocks(coefficients.to(dtype)), expected.blocks(coefficients)),
    ):
        assert one.dtype == dtype
        assert one.shape == other.shape
        size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=TOLERANCE[dtype] * size)


@pytest.mark.usefixtures("compiled")
def test_gradients_go_through_torch() -> None:
    """Compiled where nothing is differentiated, and nowhere else."""
    given, coefficients = operands(5, 20, 16)
    geometry = given[0].requires_grad_()
    assert pair_ends(*given).blocks(coefficients).requires_grad
    with torch.no_grad():
        assert not pair_ends(*given).blocks(coefficients).requires_grad
    pair_ends(*given).blocks(coefficients).sum().backward()
    assert float(geometry.grad.abs().sum()) > 0
