from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlip.kernels.hessian_pairs import PairEnds, PairNetwork, PairTerms, compiled, pair_terms, reference
from mlip.o3.cartesian import tensor_matrix

TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-5}
CUTOFF = 5.0
KINDS, WIDTH, RADIALS, COORDINATES = 4, 20, 7, 9


def operands(atoms: int, pairs: int, channels: int) -> tuple[PairEnds, PairNetwork]:
    generator = torch.Generator().manual_seed(atoms + pairs + channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / shape[0] ** 0.5

    ends = torch.randint(0, atoms, (2, pairs), generator=generator)
    kinds = torch.randint(0, KINDS, (pairs,), generator=generator)
    directions = torch.nn.functional.normalize(normal(pairs, 3) + 1e-3, dim=1)
    lengths = 0.7 + CUTOFF * torch.rand((pairs, 1), generator=generator, dtype=torch.float64)
    network = PairNetwork(
        radial=normal(RADIALS, WIDTH),
        gain=normal(KINDS, WIDTH),
        bias=normal(KINDS, WIDTH),
        angular=normal(5 * channels, WIDTH),
        pair_hidden=normal(WIDTH, WIDTH),
        pair_out=normal(WIDTH, 2 + 11 * channels),
        arm_hidden=normal(WIDTH, WIDTH),
        arm_out=normal(WIDTH, 4 * channels + COORDINATES),
        arm_mix=normal(4 * channels, COORDINATES),
        tensor=tensor_matrix(),
    )
    geometry = normal(atoms, 8, channels) * atoms**0.5
    return PairEnds(normal(atoms, 2 * WIDTH), geometry, *ends, kinds, directions * lengths), network


def cast(values: PairEnds | PairNetwork, dtype: torch.dtype) -> PairEnds | PairNetwork:
    return type(values)(*(t.to(dtype) if t.is_floating_point() else t for t in values))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def slow_terms(ends: PairEnds, n: PairNetwork, pair: int) -> tuple[Tensor, Tensor]:
    """Block and arms of one pair by the formulas of the module, index by index."""
    i, j, kind = int(ends.receivers[pair]), int(ends.senders[pair]), int(ends.kinds[pair])
    r = ends.vectors[pair].norm()
    u, k = ends.vectors[pair] / r, ends.geometry.shape[2]
    vectors, tensors = ends.geometry[:, :3], ends.geometry[:, 3:]
    turned = torch.einsum("bam,b,nmc->nac", n.tensor, u, tensors)
    basis = torch.cat([vectors[i], vectors[j], turned[i], turned[j]], dim=1)
    inner = torch.einsum("ac,ac->c", vectors[i], vectors[j]) / 3**0.5
    projections = torch.cat([u @ basis, inner])
    waves = torch.arange(1, RADIALS + 1, dtype=r.dtype) * torch.pi / CUTOFF
    bessel = (2 / CUTOFF) ** 0.5 * torch.sin(waves * r) / r
    hidden = ends.scalars[i, :WIDTH] + ends.scalars[j, WIDTH:] + n.bias[kind]
    hidden = silu(hidden + n.gain[kind] * (bessel @ n.radial) + projections @ n.angular)
    coefficients = silu(hidden @ n.pair_hidden) @ n.pair_out
    one, along, left, right, mine, other, products = coefficients.split([1, 1, 4 * k, 4 * k, k, k, k])
    p, q = basis @ left + along * u, basis @ right
    block = torch.outer(p, u) + torch.outer(u, q) + one * torch.eye(3, dtype=u.dtype)
    block += torch.einsum("c,ac,bc->ab", products, vectors[i], vectors[j])
    block += torch.einsum("abm,mc,c->ab", n.tensor, tensors[i], mine)
    block += torch.einsum("abm,mc,c->ab", n.tensor, tensors[j], other)
    across, beside = (silu(hidden @ n.arm_hidden) @ n.arm_out).split([4 * k, COORDINATES])
    arms = (basis * across) @ n.arm_mix + torch.outer(u, beside)

    def ending(x: Tensor) -> Tensor:
        return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8 if x < 1 else torch.zeros_like(x)

    size = 16.0 / (0.5 + r**4)
    return block * size * ending(r / CUTOFF), arms * size.sqrt() * ending(2 * r / CUTOFF)


def test_torch_is_the_formula() -> None:
    ends, network = operands(5, 30, 4)
    terms = reference(ends, network, CUTOFF)
    near = terms.near.tolist()
    assert near == [p for p in range(30) if float(ends.vectors[p].norm()) < 0.5 * CUTOFF]
    for p in range(30):
        block, arms = slow_terms(ends, network, p)
        torch.testing.assert_close(terms.blocks[p], block, rtol=1e-12, atol=1e-12)
        if p in near:
            torch.testing.assert_close(terms.arms[near.index(p)], arms, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("atoms", "pairs", "channels"), [(5, 20, 16), (3, 7, 5), (40, 300, 33), (2, 0, 4), (1, 1, 8)]
)
def test_compiled_equals_torch(dtype: torch.dtype, atoms: int, pairs: int, channels: int) -> None:
    ends, network = operands(atoms, pairs, channels)
    expected = reference(ends, network, CUTOFF)
    got = compiled(cast(ends, dtype), cast(network, dtype), CUTOFF)
    assert torch.equal(got.near, expected.near)
    for name in ("blocks", "weight", "arms"):
        one, other = getattr(got, name), getattr(expected, name)
        assert one.dtype == dtype
        assert one.shape == other.shape
        size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other, rtol=0, atol=TOLERANCE[dtype] * size, msg=name)


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 30.0, 1e3, 1e5])
def test_saturated_networks(dtype: torch.dtype, size: float) -> None:
    """SiLU far on both sides: its exponential neither overflows nor loses digits."""
    ends, network = operands(5, 40, 8)
    network = network._replace(bias=network.bias * size)
    expected = reference(ends, network, CUTOFF)
    got = compiled(cast(ends, dtype), cast(network, dtype), CUTOFF)
    scale = float(expected.blocks.abs().max())
    torch.testing.assert_close(
        got.blocks.double(), expected.blocks, rtol=0, atol=10 * TOLERANCE[dtype] * scale
    )


@pytest.mark.usefixtures("compiled")
def test_gradients_go_through_torch() -> None:
    """Compiled where nothing is differentiated, and nowhere else."""
    ends, network = operands(5, 20, 16)
    geometry = ends.geometry.requires_grad_()

    def total(terms: PairTerms) -> Tensor:
        return terms.blocks.sum() + terms.arms.sum()

    with torch.no_grad():
        assert not total(pair_terms(ends, network, CUTOFF)).requires_grad
    total(pair_terms(ends, network, CUTOFF)).backward()
    assert float(geometry.grad.abs().sum()) > 0
