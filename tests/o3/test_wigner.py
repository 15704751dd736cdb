import pytest
import torch
from hypothesis import given, settings
from orthogonal_group import orthogonal_matrices, random

from mlip.errors import InputError
from mlip.o3 import representation, wigner_d


@given(orthogonal_matrices, orthogonal_matrices)
@settings(max_examples=30, deadline=None)
def test_group_homomorphism_and_orthogonality(first, second):
    a, b = representation(5, first), representation(5, second)
    torch.testing.assert_close(representation(5, first @ second), a @ b, rtol=0, atol=1e-11)
    torch.testing.assert_close(a @ a.T, torch.eye(36, dtype=torch.float64), rtol=0, atol=1e-11)


def test_inversion_has_natural_parity():
    for l in range(5):
        expected = (-1) ** l * torch.eye(2 * l + 1, dtype=torch.float64)
        torch.testing.assert_close(wigner_d(l, -torch.eye(3, dtype=torch.float64)), expected)


@pytest.mark.usefixtures("double_by_default")
def test_equals_e3nn():
    o3 = pytest.importorskip("e3nn.o3")
    matrices = o3.rand_matrix(20, dtype=torch.float64)
    expected = o3.Irreps.spherical_harmonics(4).D_from_matrix(matrices)
    # e3nn goes through Euler angles, which cost digits near the poles
    torch.testing.assert_close(representation(4, matrices), expected, rtol=0, atol=1e-7)


def test_leading_dimensions_and_blocks():
    matrices = torch.linalg.qr(random(2, 3, 3, 3)).Q
    full = representation(3, matrices)
    assert full.shape == (2, 3, 16, 16)
    torch.testing.assert_close(full[1, 2, 4:9, 4:9], wigner_d(2, matrices[1, 2]))
    assert full[..., 4:9, :4].abs().max() == 0


def test_refuses():
    with pytest.raises(InputError, match="degree is -1 but must be at least 0"):
        wigner_d(-1, torch.eye(3))
    with pytest.raises(InputError, match=r"shape \(2, 2\) but must end in \(3, 3\)"):
        representation(2, torch.eye(2))
