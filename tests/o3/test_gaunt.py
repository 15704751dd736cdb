import itertools
import math

import pytest
import torch
from orthogonal_group import random

from mlip.errors import InputError
from mlip.o3 import clebsch_gordan, gaunt, spherical_harmonics
from mlip.o3.gaunt import LEBEDEV_DEGREES, gaunt_tensor, lebedev


def test_known_values():
    torch.testing.assert_close(gaunt(0, 2, 2)[0], torch.eye(5, dtype=torch.float64))
    # ∫ Y_20³ dΩ/4π along the polar axis: 5^{3/2} <P2³> = 5^{3/2} 2/35
    assert float(gaunt(2, 2, 2)[2, 2, 2]) == pytest.approx(5**1.5 * 2 / 35, rel=1e-13)


def test_multiple_of_clebsch_gordan_or_zero():
    wigner = pytest.importorskip("sympy.physics.wigner").wigner_3j
    for a, b, c in itertools.product(range(4), repeat=3):
        tensor = gaunt(a, b, c)
        if not abs(a - b) <= c <= a + b or (a + b + c) % 2:
            assert tensor.abs().max() == 0
            continue
        scale = math.sqrt((2 * a + 1) * (2 * b + 1) * (2 * c + 1)) * abs(float(wigner(a, b, c, 0, 0, 0)))
        coupling = clebsch_gordan(a, b, c)
        sign = torch.sign((tensor * coupling).sum())
        torch.testing.assert_close(tensor, sign * scale * coupling, rtol=0, atol=1e-13)


def test_product_of_functions():
    """Coefficients multiplied by the tensor are those of the product of two functions on the sphere."""
    x, y = random(9, seed=1), random(16, seed=2)
    points = random(50, 3)
    product = torch.einsum("ijk,i,j->k", gaunt_tensor(2, 3, 5), x, y)
    expected = (spherical_harmonics(points, 2) @ x) * (spherical_harmonics(points, 3) @ y)
    torch.testing.assert_close(spherical_harmonics(points, 5) @ product, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("degree", LEBEDEV_DEGREES[:12])
def test_lebedev_rule_is_exact(degree):
    points, weights = lebedev(degree)
    lmax = degree // 2
    harmonics = spherical_harmonics(points, lmax)
    overlap = torch.einsum("p,pi,pj->ij", weights, harmonics, harmonics)
    torch.testing.assert_close(overlap, torch.eye((lmax + 1) ** 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_refuses():
    with pytest.raises(InputError, match="`degree` is 132 but Lebedev rules end at 131"):
        lebedev(132)
    with pytest.raises(InputError, match="none may be negative"):
        gaunt(1, -1, 0)
