from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from operators import Case, assert_same, derivatives, edge_case, edge_cases

from mlip.kernels import reference
from mlip.kernels.edge_basis import edge_basis, supported
from mlip.o3 import spherical_harmonics

OP = torch.ops.mlip.edge_basis


def test_reference_is_the_formula() -> None:
    case = edge_case(edges=50, intervals=7)
    (vectors,), (polynomials, cutoff, intervals, lmax) = case.operands, case.others
    y, beta, interval = reference.edge_basis(vectors, polynomials, cutoff, intervals, lmax)
    torch.testing.assert_close(y, spherical_harmonics(vectors, lmax))
    seen = set()
    for e, r in enumerate(vectors.norm(dim=1).tolist()):
        at = min(int(r / cutoff * intervals), intervals - 1)
        f = r / cutoff * intervals - at
        expected = sum(f**p * polynomials[p] for p in range(6)) if r < cutoff else torch.zeros(6).double()
        torch.testing.assert_close(beta[e], expected, rtol=1e-11, atol=1e-11)
        assert interval[e] == at
        seen.add(r < cutoff)
    assert seen == {True, False}


@pytest.mark.usefixtures("each_instruction_set")
@given(case=edge_cases)
@example(case=edge_case(edges=0))
@example(case=edge_case(edges=500, lmax=5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_compiled_equals_reference(case: Case) -> None:
    assert_same(OP, reference.edge_basis, case)


@pytest.mark.usefixtures("each_instruction_set")
@given(case=edge_cases)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_single_precision(case: Case) -> None:
    """Within rounding of the reference; lengths near a knot are left out, they may fall on either side."""
    (vectors,), (polynomials, cutoff, intervals, lmax) = case.to(torch.float32).operands, case.others
    smooth = polynomials * 0 + torch.tensor([1.0, 0.3, 0.1, 0.02, 0.003, 0.0004]).double()[:, None]
    u = vectors.double().norm(dim=1) * intervals / cutoff
    clear = ((u - u.round()).abs() > 1e-4) | (u > intervals + 1e-4)
    case = Case((vectors[clear],), (smooth.float(), cutoff, intervals, lmax), case.asking)
    assert_same(OP, reference.edge_basis, case)


@pytest.mark.usefixtures("compiled", "two_threads")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bit_for_bit(dtype: torch.dtype) -> None:
    case = edge_case(edges=3001, lmax=3).to(dtype)
    results = []
    for threads in (1, 2, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(derivatives(OP, case))
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


@pytest.mark.usefixtures("compiled")
def test_finite_differences() -> None:
    case = edge_case(edges=5, intervals=3, lmax=3)
    vectors = case.operands[0].requires_grad_()

    def call(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return OP(vectors, *case.others)[:2]

    assert torch.autograd.gradcheck(call, vectors)
    assert torch.autograd.gradgradcheck(call, vectors)


@pytest.mark.usefixtures("compiled")
@pytest.mark.filterwarnings("ignore")
def test_registration() -> None:
    case = edge_case(lmax=1)
    vectors = case.operands[0].requires_grad_()
    torch.library.opcheck(OP, (vectors, *case.others))
    gy, gbeta = (torch.randn(20, n, dtype=torch.float64, requires_grad=True) for n in (4, 6))
    torch.library.opcheck(torch.ops.mlip.edge_basis_backward, (gy, gbeta, vectors, *case.others))
    torch.library.opcheck(
        torch.ops.mlip.edge_basis_double_backward,
        tuple(t.detach() for t in (vectors, gy, gbeta, vectors)) + case.others,
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.usefixtures("compiled")
def test_what_is_not_compiled_goes_to_the_reference() -> None:
    case = edge_case(lmax=6)
    assert not supported(case.operands[0], 6)
    for got, expected in zip(
        edge_basis(*case.operands, *case.others),
        reference.edge_basis(*case.operands, *case.others),
        strict=True,
    ):
        assert torch.equal(got, expected)
    with pytest.raises(RuntimeError, match=r"edge_basis_backward has no compiled case for .*'degrees': 7"):
        torch.ops.mlip.edge_basis_backward(
            torch.zeros(20, 49).double(), torch.zeros(20, 6).double(), *case.operands, *case.others
        )


@pytest.mark.usefixtures("not_compiled")
def test_without_compiled_kernels() -> None:
    case = edge_case()
    expected = reference.edge_basis(*case.operands, *case.others)
    for got in (edge_basis(*case.operands, *case.others), OP(*case.operands, *case.others)):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
