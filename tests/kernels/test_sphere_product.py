from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from operators import Case, assert_same, derivatives, sphere_case, sphere_cases

from mlip.kernels import reference
from mlip.kernels.sphere_product import sphere_product, supported

OP = torch.ops.mlip.sphere_product


def slow_product(a, scale, weight, to_points, from_points, species):  # type: ignore[no-untyped-def]
    """w1 f1 + w2 f1 f2 + w3 f1 f2 f3 ..., node by node, point by point."""
    out = torch.zeros(a.shape[0], from_points.shape[0], a.shape[2], dtype=a.dtype)
    for n, z in enumerate(species):
        for q in range(len(to_points)):
            running = torch.ones(a.shape[2], dtype=a.dtype)
            for j in range(scale.shape[1]):
                f = sum(
                    scale[z, j, l] * (to_points[q, m] @ a[n, m])
                    for l in range(scale.shape[2])
                    for m in [slice(l * l, (l + 1) ** 2)]
                )
                running = running * f
                out[n] += from_points[:, q, None] * weight[z, j] * running
    return out


@pytest.mark.parametrize("correlation", [1, 2, 3, 4])
def test_reference_is_the_formula(correlation: int) -> None:
    case = sphere_case(correlation=correlation, degrees=4, species=3, nodes=6)
    got = reference.sphere_product(*case.operands, *case.others)
    torch.testing.assert_close(got, slow_product(*case.operands, *case.others), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("each_instruction_set")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(case=sphere_cases)
@example(case=sphere_case(nodes=0))
@example(case=sphere_case(nodes=100, channels=17, points=26, degrees=4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_compiled_equals_reference(dtype: torch.dtype, case: Case) -> None:
    assert_same(OP, reference.sphere_product, case.to(dtype))


@pytest.mark.usefixtures("compiled", "two_threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bit_for_bit(dtype: torch.dtype) -> None:
    case = sphere_case(nodes=200, channels=17).to(dtype)
    results = []
    for threads in (1, 2, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(derivatives(OP, case))
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("correlation", [2, 3])
def test_finite_differences(correlation: int) -> None:
    case = sphere_case(nodes=3, channels=2, points=3, degrees=2, correlation=correlation)

    def call(*operands: torch.Tensor) -> torch.Tensor:
        return OP(*operands, *case.others)

    inputs = [t.requires_grad_() for t in case.operands]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.usefixtures("compiled")
@pytest.mark.filterwarnings("ignore")
def test_registration() -> None:
    case = sphere_case(channels=3)
    inputs = tuple(t.requires_grad_() for t in case.operands)
    torch.library.opcheck(OP, (*inputs, *case.others))
    g = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.mlip.sphere_product_backward, (g, *inputs, *case.others, True))
    plain = tuple(t.detach() for t in inputs)
    tests = ("test_schema", "test_faketensor")
    for tangents, need in ((plain, True), ((None, plain[1], None), False)):
        operands = (g.detach(), *plain, *case.others, need)
        torch.library.opcheck(torch.ops.mlip.sphere_product_backward, operands, test_utils=tests)
        double = torch.ops.mlip.sphere_product_double_backward
        torch.library.opcheck(double, (*tangents, *operands), test_utils=tests)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "shape",
    [{"correlation": 1}, {"correlation": 4}, {"degrees": 1}, {"degrees": 5}, {"degrees_out": 4}],
    ids=str,
)
def test_what_is_not_compiled_goes_to_the_reference(shape: dict[str, int]) -> None:
    case = sphere_case(**shape)
    assert not supported(case.operands[0], case.operands[1], case.others[1])
    got = sphere_product(*case.operands, *case.others)
    assert torch.equal(got, reference.sphere_product(*case.operands, *case.others))
    g = torch.zeros_like(got)
    with pytest.raises(RuntimeError, match="mlip::sphere_product_backward has no compiled case for"):
        torch.ops.mlip.sphere_product_backward(g, *case.operands, *case.others, True)


@pytest.mark.usefixtures("not_compiled")
def test_without_compiled_kernels() -> None:
    case = sphere_case()
    expected = reference.sphere_product(*case.operands, *case.others)
    assert torch.equal(sphere_product(*case.operands, *case.others), expected)
    with pytest.raises(RuntimeError, match="the compiled kernels are not installed; reinstall polyad"):
        torch.ops.mlip.sphere_product_backward(expected, *case.operands, *case.others, True)
