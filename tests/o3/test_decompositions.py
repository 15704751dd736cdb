import itertools

import pytest
import torch
from safetensors import safe_open

from mlip.errors import InputError
from mlip.o3 import factors
from mlip.o3.decompositions import FACTOR_FILE, shipped_degrees, target_tensor

DEGREES = list(itertools.product(range(4), repeat=3))

# Ranks promised in the documentation, degrees in ascending order.
RANKS = {
    (1, 1, 1): 6,
    (1, 2, 2): 12,
    (1, 1, 3): 9,
    (2, 2, 2): 18,
    (1, 3, 3): 21,
    (2, 2, 3): 21,
    (2, 3, 3): 28,
    (3, 3, 3): 32,
    (1, 4, 4): 31,
    (2, 3, 4): 31,
    (2, 4, 4): 42,
    (3, 3, 4): 46,
    (3, 4, 4): 49,
}


@pytest.mark.parametrize("kind", ["quadrature", "cp"])
def test_exact_for_every_order_of_degrees(kind):
    for degrees in DEGREES:
        f = factors(kind, *degrees)
        model = torch.einsum("kr,ri,rj->ijk", f.U, f.V, f.W)
        target = target_tensor(kind, *degrees)
        assert (model - target).norm() / target.norm() < 1e-13
        assert f.error < 1e-13
        assert (f.lmax_x, f.lmax_y, f.lmax_z) == degrees
        assert f.V.shape == (f.rank, (degrees[0] + 1) ** 2)


@pytest.mark.parametrize("degrees", RANKS)
def test_rank_of_every_permutation(degrees):
    for permuted in itertools.permutations(degrees):
        assert factors("cp", *permuted).rank == RANKS[degrees]
        assert factors("cp", *permuted).rank <= factors("quadrature", *permuted).rank


def test_factors_are_of_order_one():
    for kind, degrees in [(k, d) for k in ("cp", "cp-all") for d in shipped_degrees(k)]:
        f = factors(kind, *degrees)
        assert max(float(m.abs().max()) for m in (f.U, f.V, f.W)) < 3


@pytest.mark.parametrize(("degree", "rank"), [(1, 8), (2, 30), (3, 98)])
def test_all_paths(degree, rank):
    f = factors("cp-all", degree, degree, degree)
    assert f.rank == rank
    assert f.error < 1e-13
    assert factors("cp-all", degree, degree, degree - 1).error < 1e-13


def test_degree_zero_leaves_the_identity():
    f = factors("cp", 0, 3, 2)
    assert f.rank == 9
    torch.testing.assert_close(f.U @ f.W, torch.eye(9, 16, dtype=torch.float64))


def test_file_is_small_and_double_precision():
    assert FACTOR_FILE.stat().st_size < 500_000
    with safe_open(FACTOR_FILE, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in list(file.keys())} == {"F64"}


def test_refuses():
    with pytest.raises(InputError, match='`kind` is "svd" but must be one of quadrature, cp, cp-all'):
        factors("svd", 1, 1, 1)
    with pytest.raises(InputError, match="none may be negative"):
        factors("cp", 1, -1, 1)
    with pytest.raises(
        InputError, match=r'no "cp" factors are shipped for degrees 9,9,9; .* 1,1,1, .* 3,3,3'
    ):
        factors("cp", 9, 9, 9)
    with pytest.raises(InputError, match=r'no "cp-all" factors are shipped for degrees 9,1,1'):
        factors("cp-all", 9, 1, 1)
