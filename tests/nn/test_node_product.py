from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlip.nn.node_product import SphereProduct
from mlip.o3 import representation, spherical_harmonics
from mlip.o3.gaunt import gaunt


def product_grid(degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights (sum one) of a rule other than the module's: Gauss–Legendre times trapezoidal."""
    z, w = np.polynomial.legendre.leggauss(degree // 2 + 1)
    phi = 2 * math.pi * np.arange(degree + 1) / (degree + 1)
    s = np.sqrt(1 - z**2)
    points = np.stack(
        [np.outer(s, np.cos(phi)), np.outer(s, np.sin(phi)), np.outer(z, np.ones_like(phi))], -1
    )
    return torch.from_numpy(points.reshape(-1, 3)), torch.from_numpy(
        np.repeat(w / 2, degree + 1) / (degree + 1)
    )


@pytest.mark.parametrize("correlation", [1, 2, 3, 4])
@pytest.mark.parametrize(("lmax", "lmax_out"), [(1, 1), (2, 1), (3, 0), (2, 2), (1, 2)])
def test_integral(correlation: int, lmax: int, lmax_out: int) -> None:
    """The integral of powers of a function on the sphere, on another grid."""
    torch.manual_seed(0)
    module = SphereProduct(lmax, lmax_out, 3, 2, correlation=correlation).double()
    a, species = torch.randn(5, (lmax + 1) ** 2, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    points, weights = product_grid(correlation * lmax + lmax_out + 3)
    y = spherical_harmonics(points, max(lmax, lmax_out))
    mixed = module.mix(a)
    expected = torch.zeros(5, (lmax_out + 1) ** 2, 3, dtype=torch.float64)
    for n, z in enumerate(species.tolist()):
        running = torch.ones(len(points), 3, dtype=torch.float64)
        for j in range(correlation):
            f = torch.zeros_like(running)
            for l in range(lmax + 1):
                m = slice(l * l, (l + 1) ** 2)
                f += module.scale[z, j, l] * (y[:, m] @ mixed[n, m]) / (lmax + 1)
            running = running * f
            values = module.weight[z, j] * running
            expected[n] += torch.einsum("p,pk,pc->kc", weights, y[:, : (lmax_out + 1) ** 2], values)
    torch.testing.assert_close(module(a, species), expected, rtol=1e-11, atol=1e-12)


def test_couplings() -> None:
    """The quadratic term couples degrees through Gaunt coefficients, weighted by the product of scales."""
    torch.manual_seed(1)
    lmax, lmax_out = 2, 2
    module = SphereProduct(lmax, lmax_out, 4, 1, correlation=2).double()
    with torch.no_grad():
        module.weight[:, 0] = 0.0
    a, species = torch.randn(3, 9, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    mixed = module.mix(a) / (lmax + 1)
    expected = torch.zeros(3, 9, 4, dtype=torch.float64)
    for l1 in range(3):
        for l2 in range(3):
            for l3 in range(3):
                one, two, three = (slice(l * l, (l + 1) ** 2) for l in (l1, l2, l3))
                weight = module.scale[0, 0, l1] * module.scale[0, 1, l2] * module.weight[0, 1]
                coupled = torch.einsum("ijk,nic,njc->nkc", gaunt(l1, l2, l3), mixed[:, one], mixed[:, two])
                expected[:, three] += weight * coupled
    torch.testing.assert_close(module(a, species), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_symmetry(sign: int) -> None:
    torch.manual_seed(2)
    module = SphereProduct(3, 2, 3, 2, correlation=3).double()
    a, species = torch.randn(4, 16, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    orthogonal = sign * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = module(representation(3, orthogonal) @ a, species)
    torch.testing.assert_close(
        turned, representation(2, orthogonal) @ module(a, species), rtol=1e-11, atol=1e-11
    )


def test_nothing_in_nothing_out() -> None:
    module = SphereProduct(2, 1, 3, 1, correlation=3).double()
    assert not module(torch.zeros(2, 9, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)).any()
    assert module(torch.zeros(0, 9, 3).double(), torch.zeros(0, dtype=torch.int64)).shape == (0, 4, 3)


@pytest.mark.parametrize("correlation", [0, 5])
def test_correlation_out_of_range(correlation: int) -> None:
    with pytest.raises(ValueError, match=f"`correlation` is {correlation} but must be 1, 2, 3 or 4"):
        SphereProduct(2, 1, 3, 1, correlation=correlation)
