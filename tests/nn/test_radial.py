from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mlip.kernels import reference
from mlip.kernels.distance import bessel, polynomial_envelope
from mlip.nn.radial import (
    ORDER,
    RadialTable,
    SplineBasis,
    uniform_bspline_matrix,
)

CUTOFF, INTERVALS = 5.0, 9


def along_x(r: torch.Tensor) -> torch.Tensor:
    return r[:, None] * torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)


def evaluate(basis: SplineBasis, table: torch.Tensor, r: torch.Tensor, pair: int = 0) -> torch.Tensor:
    """Radial functions at r: the six splines times the rows of the table."""
    _, beta, interval = basis(along_x(r), 0)
    rows = pair * basis.rows + interval[:, None] + torch.arange(ORDER)
    return torch.einsum("ek,ekfc->efc", beta, table[rows])


def test_pieces_are_those_of_scipy() -> None:
    spline = BSpline.basis_element(np.arange(7.0), extrapolate=False)
    f = torch.linspace(0, 0.999, 11, dtype=torch.float64)
    powers = f[:, None] ** torch.arange(6)
    got = powers @ uniform_bspline_matrix()
    for k in range(6):
        np.testing.assert_allclose(got[:, k], spline(5 - k + f.numpy()), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(got.sum(1), 1.0, rtol=1e-14)


def test_splines_are_those_of_scipy() -> None:
    """The whole radial function, and its first four derivatives, up to the cutoff and beyond."""
    basis = SplineBasis(CUTOFF, INTERVALS)
    torch.manual_seed(0)
    coefficients = torch.randn(basis.rows, dtype=torch.float64)
    coefficients[INTERVALS:] = 0.0
    step = CUTOFF / INTERVALS
    knots = step * np.arange(-5, INTERVALS + 6)
    spline = BSpline(knots, coefficients.numpy(), 5)
    r = torch.linspace(0.05, 1.2 * CUTOFF, 200, dtype=torch.float64).requires_grad_()
    _, beta, interval = reference.edge_basis(along_x(r), basis.polynomials, CUTOFF, INTERVALS, 0)
    value = (beta * coefficients[interval[:, None] + torch.arange(ORDER)]).sum(1)
    for order in range(5):
        expected = np.where(r.detach().numpy() < CUTOFF, spline.derivative(order)(r.detach().numpy()), 0.0)
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
        (value,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    got = evaluate(basis, coefficients.view(-1, 1, 1), r.detach())[:, 0, 0]
    expected = np.where(r.detach().numpy() < CUTOFF, spline(r.detach().numpy()), 0.0)
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.parametrize("kind", ["network", "spline"])
def test_smooth_at_the_cutoff(kind: str) -> None:
    """Zero with four derivatives there; the fifth is not."""
    torch.manual_seed(1)
    basis = SplineBasis(CUTOFF, INTERVALS)
    table = RadialTable(basis, 1, 1, 1, kind=kind, width=8).double()().detach()
    sizes = []
    for x in (0.5, 1 - 1e-7, 1.0, 1.001):
        r = torch.tensor([x * CUTOFF], dtype=torch.float64, requires_grad=True)
        _, beta, interval = reference.edge_basis(along_x(r), basis.polynomials, CUTOFF, INTERVALS, 0)
        value = (beta[0] * table[interval[0] + torch.arange(ORDER), 0, 0]).sum()
        derivatives = []
        for _ in range(6):
            derivatives.append(abs(float(value)))
            (value,) = torch.autograd.grad(value.sum(), r, create_graph=True)
        sizes.append(derivatives)
    inside, below, at, beyond = sizes
    for order in range(5):
        assert below[order] < 1e-4 * inside[order], order
    assert below[5] > 1e-4 * inside[5]
    assert at == beyond == [0.0] * 6


def test_knots() -> None:
    """Each function that is kept peaks at its knot and is gone at the cutoff."""
    basis = SplineBasis(CUTOFF, INTERVALS)
    assert basis.rows == INTERVALS + 5
    r = torch.linspace(1e-3, CUTOFF - 1e-9, 2001, dtype=torch.float64)
    values = evaluate(basis, torch.eye(basis.rows, dtype=torch.float64).unsqueeze(2), r)[:, :, 0]
    for k, knot in enumerate(basis.knots().tolist()):
        assert abs(float(values[-1, k])) < 1e-12
        if knot > 0.1:
            assert abs(float(r[values[:, k].argmax()]) - knot) < 0.01
    assert float(values[-1, INTERVALS:].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["network", "spline"])
def test_table_layout(kind: str) -> None:
    """Rows of one pair, `receiver * num_species + sender`, lie together; the last five are zero."""
    torch.manual_seed(2)
    basis = SplineBasis(CUTOFF, INTERVALS)
    radial = RadialTable(basis, 3, 4, 2, kind=kind, width=8).double()
    table = radial()
    assert table.shape == (9 * basis.rows, 4, 2)
    by_pair = table.view(9, basis.rows, 4, 2)
    assert (by_pair[:, INTERVALS:] == 0).all()
    assert (by_pair[:, :INTERVALS].flatten(2).abs().sum(2) > 0).all()
    parameter = radial.coefficients if kind == "spline" else radial.pair_bias
    with torch.no_grad():
        parameter[5] += 1.0
    changed = (radial().view_as(by_pair) != by_pair).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [5]
    if kind == "spline":
        expected = radial.coefficients.view(9, INTERVALS, 4, 2) * radial.envelope[None, :, None, None]
        assert torch.equal(radial().view_as(by_pair)[:, :INTERVALS], expected)


@pytest.mark.parametrize("kind", ["network", "spline"])
def test_fresh_functions_have_a_sensible_size(kind: str) -> None:
    torch.manual_seed(3)
    basis = SplineBasis(CUTOFF, 20)
    table = RadialTable(basis, 1, 8, 64, kind=kind).double()()
    r = torch.linspace(0.5, 0.7 * CUTOFF, 50, dtype=torch.float64)
    size = float(evaluate(basis, table, r).pow(2).mean().sqrt())
    assert 0.1 < size < 5.0


def test_bessel() -> None:
    r = torch.linspace(0.1, CUTOFF, 50, dtype=torch.float64)
    got = bessel(r, CUTOFF, 4)
    for n in range(1, 5):
        expected = math.sqrt(2 / CUTOFF) * torch.sin(n * math.pi * r / CUTOFF) / r
        torch.testing.assert_close(got[:, n - 1], expected)
    limit = [math.sqrt(2 / CUTOFF) * n * math.pi / CUTOFF for n in range(1, 5)]
    torch.testing.assert_close(bessel(torch.zeros(1).double(), CUTOFF, 4)[0], torch.tensor(limit).double())


@pytest.mark.parametrize("p", [4, 6])
def test_polynomial_envelope(p: int) -> None:
    """1 and flat at 0; 0 with two derivatives at 1 and zero beyond."""
    x = torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    value = polynomial_envelope(x, p)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(value.detach(), torch.tensor([1.0, 0.0, 0.0]).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(slope.detach(), torch.zeros(3).double(), atol=1e-11, rtol=0)
    torch.testing.assert_close(curvature, torch.zeros(3).double(), atol=1e-10, rtol=0)
    middle = float(polynomial_envelope(torch.tensor([0.5]).double(), 6))
    assert middle == pytest.approx(1 - 28 / 64 + 48 / 128 - 21 / 256)


def test_errors() -> None:
    with pytest.raises(ValueError, match="`num_intervals` is 0 but must be at least 1"):
        SplineBasis(5.0, 0)
    with pytest.raises(ValueError, match="`radial` is 'bessel' but must be 'network' or 'spline'"):
        RadialTable(SplineBasis(5.0, 4), 1, 1, 1, kind="bessel")  # type: ignore[arg-type]
