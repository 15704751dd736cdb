import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from orthogonal_group import orthogonal_matrices, random

from mlip.errors import InputError
from mlip.o3 import representation, spherical_harmonics


def test_first_degrees_by_hand():
    x, y, z = 0.48, -0.6, 0.64
    s3, s5, s15 = math.sqrt(3), math.sqrt(5), math.sqrt(15)
    expected = [1, s3 * x, s3 * y, s3 * z]
    expected += [s15 * x * z, s15 * x * y, s5 / 2 * (3 * y * y - 1), s15 * y * z, s15 / 2 * (z * z - x * x)]
    actual = spherical_harmonics(torch.tensor([x, y, z], dtype=torch.float64) * 2.5, 2)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_e3nn(normalize):
    o3 = pytest.importorskip("e3nn.o3")
    vectors = random(40, 3)
    for lmax in range(9):
        expected = o3.spherical_harmonics(
            list(range(lmax + 1)), vectors, normalize, normalization="component"
        )
        actual = spherical_harmonics(vectors, lmax, normalize=normalize)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_equals_scipy():
    """Real combinations of SciPy's complex harmonics, whose polar axis is our y and whose x is our z."""
    special = pytest.importorskip("scipy.special")
    vectors = random(20, 3)
    ours = spherical_harmonics(vectors, 6).numpy()
    x, y, z = (vectors / vectors.norm(dim=1, keepdim=True)).numpy().T
    for l in range(7):
        for m in range(l + 1):
            theirs = special.sph_harm_y(l, m, np.arccos(y), np.arctan2(x, z)) * math.sqrt(4 * math.pi)
            theirs = theirs * (-1) ** m * (1 if m == 0 else math.sqrt(2))
            np.testing.assert_allclose(ours[:, l * l + l + m], theirs.real, atol=1e-12)
            if m > 0:
                np.testing.assert_allclose(ours[:, l * l + l - m], theirs.imag, atol=1e-12)


@given(orthogonal_matrices)
@settings(max_examples=30, deadline=None)
def test_equivariance(matrix):
    vectors = random(5, 3)
    expected = spherical_harmonics(vectors, 6) @ representation(6, matrix).T
    torch.testing.assert_close(spherical_harmonics(vectors @ matrix.T, 6), expected, rtol=0, atol=1e-11)


def test_component_normalisation():
    squares = spherical_harmonics(random(10, 3), 5).square()
    for l in range(6):
        lengths = squares[:, l * l : (l + 1) ** 2].sum(1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 2 * l + 1), rtol=1e-13, atol=0)


def test_homogeneous_when_not_normalised():
    vectors = random(10, 3)
    degrees = torch.tensor([l for l in range(5) for _ in range(2 * l + 1)])
    scaled = spherical_harmonics(2 * vectors, 4, normalize=False)
    torch.testing.assert_close(scaled, 2.0**degrees * spherical_harmonics(vectors, 4, normalize=False))


@pytest.mark.parametrize("normalize", [True, False])
def test_first_and_second_derivatives(normalize):
    # the poles and the axes are where a formula in angles would fail
    vectors = torch.cat([random(2, 3), torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    vectors.requires_grad_()
    function = lambda v: spherical_harmonics(v, 4, normalize=normalize)  # noqa: E731
    assert torch.autograd.gradcheck(function, vectors)
    assert torch.autograd.gradgradcheck(function, vectors)


@pytest.mark.parametrize("lmax", range(5))
def test_harmonic_functions(lmax):
    """The solid harmonics obey Laplace's equation."""
    laplacian = torch.zeros((lmax + 1) ** 2, dtype=torch.float64)
    point = random(3)
    for component in range((lmax + 1) ** 2):
        function = lambda v, c=component: spherical_harmonics(v, lmax, normalize=False)[c]  # noqa: E731
        laplacian[component] = torch.autograd.functional.hessian(function, point).trace()
    torch.testing.assert_close(laplacian, torch.zeros_like(laplacian), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 4, 3)])
def test_shapes_and_dtypes(shape):
    for dtype in (torch.float32, torch.float64):
        out = spherical_harmonics(torch.ones(shape, dtype=dtype), 3)
        assert out.shape == (*shape[:-1], 16)
        assert out.dtype == dtype


def test_single_precision():
    vectors = random(100, 3)
    single = spherical_harmonics(vectors.float(), 4).double()
    torch.testing.assert_close(single, spherical_harmonics(vectors, 4), rtol=0, atol=1e-5)


def test_refuses():
    with pytest.raises(InputError, match="`lmax` is -1 but must be at least 0"):
        spherical_harmonics(torch.ones(3), -1)
    with pytest.raises(InputError, match=r"shape \(4, 2\) but its last dimension must be 3"):
        spherical_harmonics(torch.ones(4, 2), 1)
