import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from orthogonal_group import orthogonal_matrices

from mlip.errors import InputError
from mlip.o3 import clebsch_gordan, wigner_d

TRIPLES = [(a, b, c) for a, b, c in itertools.product(range(5), repeat=3) if abs(a - b) <= c <= a + b]


def test_equals_e3nn():
    o3 = pytest.importorskip("e3nn.o3")
    for triple in TRIPLES:
        expected = o3.wigner_3j(*triple, dtype=torch.float64)
        torch.testing.assert_close(clebsch_gordan(*triple), expected, rtol=0, atol=1e-14)


def test_dot_and_cross_product():
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(clebsch_gordan(1, 1, 0)[:, :, 0], eye / math.sqrt(3))
    cross = clebsch_gordan(1, 1, 1) * math.sqrt(6)
    x, y, z = eye
    torch.testing.assert_close(torch.einsum("ijk,i,j->k", cross, x, y), z)
    torch.testing.assert_close(torch.einsum("ijk,i,j->k", cross, y, x), -z)


def test_orthogonal():
    for a, b in itertools.product(range(4), repeat=2):
        table = torch.cat(
            [math.sqrt(2 * c + 1) * clebsch_gordan(a, b, c) for c in range(abs(a - b), a + b + 1)], dim=2
        ).flatten(0, 1)
        torch.testing.assert_close(table @ table.T, torch.eye(len(table), dtype=torch.float64))


@given(orthogonal_matrices)
@settings(max_examples=15, deadline=None)
def test_invariant(matrix):
    for a, b, c in TRIPLES:
        coupling = clebsch_gordan(a, b, c)
        turned = torch.einsum("ijk,ai,bj,ck->abc", coupling, *(wigner_d(l, matrix) for l in (a, b, c)))
        sign = 1 if (a + b + c) % 2 == 0 else matrix.det().sign()
        torch.testing.assert_close(turned, sign * coupling, rtol=0, atol=1e-12)


def test_refuses():
    with pytest.raises(InputError, match=r"degrees \(1, 1, 3\) do not couple: the last must lie in 0 … 2"):
        clebsch_gordan(1, 1, 3)
    with pytest.raises(InputError, match="none may be negative"):
        clebsch_gordan(0, -1, 1)
