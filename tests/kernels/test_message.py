from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from operators import Case, assert_same, derivatives, message_case, message_cases

from mlip.kernels import reference
from mlip.kernels.message import message, supported

OP = torch.ops.mlip.message


def slow_message(a, y, beta, table, weight, row, senders, receivers, num_receivers):  # type: ignore[no-untyped-def]
    """The formula, one loop after another."""
    z = torch.zeros(num_receivers, weight.shape[0], a.shape[2], dtype=a.dtype)
    for e in range(len(senders)):
        for l in range(table.shape[1]):
            m = slice(l * l, (l + 1) ** 2)
            b = weight[:, m] @ y[e, m]
            w = sum(beta[e, k] * table[row[e] + k, l] for k in range(beta.shape[1]))
            z[receivers[e]] += a[senders[e]] * b[:, None] * w[None, :]
    return z


@pytest.mark.parametrize("scalars", [False, True])
def test_reference_is_the_formula(scalars: bool) -> None:
    case = message_case(scalars=scalars, degrees=4)
    got = reference.message(*case.operands, *case.others)
    torch.testing.assert_close(got, slow_message(*case.operands, *case.others), rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(case=message_cases)
@example(case=message_case(nodes=0))
@example(case=message_case(edges=0))
@example(case=message_case(nodes=9, edges=3, channels=17))
@example(case=message_case(scalars=True, pure=True, channels=33, degrees=4, points=16))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_compiled_equals_reference(dtype: torch.dtype, case: Case) -> None:
    assert_same(OP, reference.message, case.to(dtype))


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("pure", [False, True])
def test_many_edges(pure: bool) -> None:
    """Enough for several chunks, with nodes that have many edges and nodes that have none."""
    case = message_case(nodes=50, edges=2000, channels=9, pure=pure)
    *before, receivers, nodes = case.others
    receivers = (receivers // 3).clamp(min=2)
    assert_same(OP, reference.message, Case(case.operands, (*before, receivers, nodes), case.asking))


@pytest.mark.usefixtures("compiled", "two_threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bit_for_bit(dtype: torch.dtype) -> None:
    case = message_case(nodes=60, edges=3000, channels=17).to(dtype)
    results = []
    for threads in (1, 2, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(derivatives(OP, case))
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("scalars", [False, True])
def test_finite_differences(scalars: bool, pure: bool) -> None:
    case = message_case(
        nodes=2, edges=4, channels=2, points=3, degrees=2, basis=2, scalars=scalars, pure=pure
    )

    def call(*operands: torch.Tensor) -> torch.Tensor:
        return OP(*operands, *case.others)

    inputs = [t.requires_grad_() for t in case.operands]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.usefixtures("compiled")
@pytest.mark.filterwarnings("ignore")
def test_registration() -> None:
    case = message_case(channels=3)
    inputs = tuple(t.requires_grad_() for t in case.operands)
    torch.library.opcheck(OP, (*inputs, *case.others))
    g = torch.randn(5, 7, 3, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.mlip.message_backward, (g, *inputs, *case.others[:-1], True))


@pytest.mark.usefixtures("compiled")
def test_double_backward_registration() -> None:
    case = message_case(channels=3)
    inputs = tuple(t.detach() for t in case.operands)
    g = torch.randn(5, 7, 3, dtype=torch.float64)
    tests = ("test_schema", "test_faketensor")
    for tangents in (inputs, (None, None, inputs[2], None)):
        for need_table in (True, False):
            operands = (g, *inputs, *case.others[:-1], need_table)
            torch.library.opcheck(torch.ops.mlip.message_backward, operands, test_utils=tests)
            torch.library.opcheck(
                torch.ops.mlip.message_double_backward, (*tangents, *operands), test_utils=tests
            )


def test_constant_factor_gets_no_gradient() -> None:
    case = message_case()
    weight = case.others[0].requires_grad_()
    assert (
        torch.autograd.grad(
            message(*(t.requires_grad_() for t in case.operands), *case.others).sum(), case.operands[0]
        )[0].shape
        == case.operands[0].shape
    )
    assert weight.grad is None


@pytest.mark.usefixtures("compiled")
def test_what_is_not_compiled_goes_to_the_reference() -> None:
    for case in (message_case(degrees=6, points=4), message_case(basis=65)):
        a, _, beta, table = case.operands
        assert not supported(a, table, beta)
        torch.testing.assert_close(
            message(*case.operands, *case.others),
            reference.message(*case.operands, *case.others),
            rtol=0,
            atol=0,
        )
    g = torch.zeros(5, 7, 5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="mlip::message_backward has no compiled case"):
        torch.ops.mlip.message_backward(g, *case.operands, *case.others[:-1], True)


@pytest.mark.usefixtures("not_compiled")
def test_without_compiled_kernels() -> None:
    case = message_case()
    expected = reference.message(*case.operands, *case.others)
    assert torch.equal(message(*case.operands, *case.others), expected)
    assert torch.equal(OP(*case.operands, *case.others), expected)
    g = torch.zeros(5, 7, 5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="the compiled kernels are not installed; reinstall polyad"):
        torch.ops.mlip.message_backward(g, *case.operands, *case.others[:-1], True)
