from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from operators import Case, assert_same, linear_case, linear_cases, project_case, project_cases

from mlip.kernels import reference
from mlip.kernels.linear import linear, project

OP = torch.ops.mlip.linear


def compiled(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = OP(x, weight, weight.transpose(1, 2).contiguous())
    return result


def compiled_project(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mlip.project(x, matrix, matrix.T.contiguous())
    return result


def slow_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Component by component."""
    out = torch.zeros(*x.shape[:2], weight.shape[2], dtype=x.dtype)
    for l in range(len(weight)):
        for m in range(l * l, (l + 1) ** 2):
            out[:, m] = x[:, m] @ weight[l]
    return out


def test_reference_is_the_formula() -> None:
    case = linear_case(degrees=4, nodes=6)
    torch.testing.assert_close(reference.linear(*case.operands), slow_linear(*case.operands))


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(case=linear_cases)
@example(case=linear_case(nodes=0))
@example(case=linear_case(nodes=50, channels=96, channels_out=96, degrees=3))
@example(case=linear_case(nodes=3, channels=64, channels_out=130, degrees=4, strided=True))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_compiled_equals_reference(dtype: torch.dtype, case: Case) -> None:
    assert_same(compiled, reference.linear, case.to(dtype))


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(case=project_cases)
@example(case=project_case(nodes=0))
@example(case=project_case(nodes=50, channels=96, components=9, components_out=21))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_projection_equals_reference(dtype: torch.dtype, case: Case) -> None:
    assert_same(compiled_project, reference.project, case.to(dtype))


@pytest.mark.usefixtures("compiled", "two_threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bit_for_bit(dtype: torch.dtype) -> None:
    case = linear_case(nodes=200, channels=17, channels_out=33).to(dtype)
    results = []
    for threads in (1, 2, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(compiled(*case.operands))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("compiled")
def test_finite_differences() -> None:
    inputs = [
        t.requires_grad_() for t in linear_case(nodes=3, channels=2, channels_out=3, degrees=2).operands
    ]
    assert torch.autograd.gradcheck(linear, inputs)
    assert torch.autograd.gradgradcheck(linear, inputs)
    case = project_case(nodes=3, channels=2, components=4, components_out=3)
    matrix = case.others[0]

    def to_points(x: torch.Tensor) -> torch.Tensor:
        return project(x, matrix, matrix.T)

    assert torch.autograd.gradcheck(to_points, case.operands[0].requires_grad_())
    assert torch.autograd.gradgradcheck(to_points, case.operands[0].requires_grad_())
    assert torch.autograd.gradcheck(compiled, inputs)
    assert torch.autograd.gradgradcheck(compiled, inputs)


@pytest.mark.usefixtures("compiled")
@pytest.mark.filterwarnings("ignore")
def test_registration() -> None:
    x, weight = (t.requires_grad_() for t in linear_case(channels=3).operands)
    torch.library.opcheck(OP, (x, weight, weight.detach().transpose(1, 2)))
    case = project_case(channels=3)
    matrix = case.others[0]
    torch.library.opcheck(torch.ops.mlip.project, (case.operands[0].requires_grad_(), matrix, matrix.T))
