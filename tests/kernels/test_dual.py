"""Kernels on dual numbers against their references."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import TOLERANCE, Draw, message_case, sphere_case
from torch import Tensor

from mlip.kernels import reference
from mlip.kernels.message import dual_message
from mlip.kernels.sphere_product import dual_sphere_product

channels = st.sampled_from([1, 7, 8, 16, 17, 33])
dtypes = st.sampled_from([torch.float64, torch.float32])


def same(compiled: Callable[..., Tensor], oracle: Callable[..., Tensor], operands: list[Tensor]) -> None:
    """Values and gradients by every operand."""
    results = []
    for function in (compiled, oracle):
        inputs = [t.clone().requires_grad_() for t in operands]
        out = function(*inputs)
        cotangent = Draw(3).normal(*out.shape).to(out.dtype)
        results.append([out, *torch.autograd.grad(out, inputs, cotangent)])
    for got, expected in zip(*results, strict=True):
        scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
        assert got.shape == expected.shape
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=TOLERANCE[got.dtype])


@pytest.mark.usefixtures("each_instruction_set")
@given(
    nodes=st.integers(1, 9),
    edges=st.integers(0, 90),
    channels=channels,
    degrees=st.integers(1, 5),
    scalars=st.booleans(),
    pure=st.booleans(),
    still=st.booleans(),
    dtype=dtypes,
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_message(
    nodes: int,
    edges: int,
    channels: int,
    degrees: int,
    scalars: bool,
    pure: bool,
    still: bool,
    dtype: torch.dtype,
) -> None:
    """`still` features have no tangent."""
    options = {"nodes": nodes, "edges": edges, "channels": channels, "degrees": degrees}
    value, tangent = (message_case(scalars=scalars, pure=pure, seed=s, **options).to(dtype) for s in (1, 2))
    a, y, beta, table = value.operands
    da, dy, dbeta, _ = tangent.operands
    basis = (torch.stack([y, dy]), torch.stack([beta, dbeta]))

    def on(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda a, table: operator(a, *basis, table, *value.others[:4])

    stacked = a[None] if still else torch.stack([a, da])
    same(on(dual_message), on(reference.dual_message), [stacked, table])


@pytest.mark.usefixtures("each_instruction_set")
@given(
    nodes=st.integers(0, 9),
    channels=channels,
    degrees=st.integers(2, 4),
    correlation=st.integers(2, 3),
    dtype=dtypes,
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_sphere_product(
    nodes: int, channels: int, degrees: int, correlation: int, dtype: torch.dtype
) -> None:
    options = {"nodes": nodes, "channels": channels, "degrees": degrees, "correlation": correlation}
    value, tangent = (sphere_case(seed=s, **options).to(dtype) for s in (1, 2))
    a, scale, weight = value.operands

    def on(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *operands: operator(*operands, *value.others)

    stacked = torch.stack([a, tangent.operands[0]])
    same(on(dual_sphere_product), on(reference.dual_sphere_product), [stacked, scale, weight])


def test_references_are_derivatives() -> None:
    """The tangents of the references are what autograd gives for the plain operators."""
    case, along = message_case(seed=1), message_case(seed=2)
    (a, y, beta, table), (da, dy, dbeta, _) = case.operands, along.operands
    value, tangent = torch.func.jvp(
        lambda *x: reference.message(*x, table, *case.others), (a, y, beta), (da, dy, dbeta)
    )
    stacked = [torch.stack(pair) for pair in ((a, da), (y, dy), (beta, dbeta))]
    got = reference.dual_message(*stacked, table, *case.others[:4])
    torch.testing.assert_close(got, torch.stack([value, tangent]), rtol=1e-12, atol=1e-12)
    sphere, direction = sphere_case(seed=1), sphere_case(seed=2).operands[0]
    a, *parameters = sphere.operands
    value, tangent = torch.func.jvp(
        lambda x: reference.sphere_product(x, *parameters, *sphere.others), (a,), (direction,)
    )
    got = reference.dual_sphere_product(torch.stack([a, direction]), *parameters, *sphere.others)
    torch.testing.assert_close(got, torch.stack([value, tangent]), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("compiled", "two_threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bit_for_bit(dtype: torch.dtype) -> None:
    case = message_case(nodes=60, edges=3000, channels=17).to(dtype)
    a, y, beta, table = case.operands
    results = []
    for threads in (1, 2, 1, 3):
        torch.set_num_threads(threads)
        inputs = [torch.stack([a, 2 * a]).requires_grad_(), table.clone().requires_grad_()]
        out = dual_message(
            inputs[0], torch.stack([y, -y]), torch.stack([beta, beta]), inputs[1], *case.others[:4]
        )
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
