import copy
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from orthogonal_group import TOLERANCE, orthogonal_matrices, random, relative, rotations

from mlip.errors import InputError
from mlip.o3 import Product, clebsch_gordan, natural_paths, representation

KINDS = ["cg", "quadrature", "cp"]
DEGREES = [(1, 1, 1), (1, 3, 3), (2, 3, 3), (3, 3, 3), (3, 1, 2), (0, 3, 3), (3, 3, 0), (1, 1, 3)]


def _operands(degrees, channels_y, num_weights, channels=4, nodes=3):
    dx, dy, _ = ((l + 1) ** 2 for l in degrees)
    x, y = random(nodes, dx, channels, seed=1), random(nodes, dy, channels_y, seed=2)
    return x, y, random(nodes, num_weights, channels, seed=3)


def _slow_cg(product, x, y, weights):
    """Twin of "cg": one dense tensor per path, nothing clever."""
    out = torch.zeros(x.shape[0], (product.lmax_z + 1) ** 2, x.shape[2], dtype=x.dtype)
    for path, (l1, l2, l3) in enumerate(product.paths):
        blocks = [slice(l * l, (l + 1) ** 2) for l in (l1, l2, l3)]
        term = torch.einsum(
            "ijk,nic,njc->nkc",
            clebsch_gordan(l1, l2, l3),
            x[:, blocks[0]],
            y[:, blocks[1]].expand(-1, -1, x.shape[2]),
        )
        out[:, blocks[2]] += (2 * l3 + 1) ** 0.5 * weights[:, path, None] * term
    return out


@pytest.mark.parametrize("channels_y", [1, 4])
@pytest.mark.parametrize("degrees", DEGREES)
def test_cg_against_slow_twin(degrees, channels_y):
    product = Product("cg", *degrees)
    x, y, weights = _operands(degrees, channels_y, product.num_weights)
    assert relative(product(x, y, weights), _slow_cg(product, x, y, weights)) < TOLERANCE
    ones = torch.ones_like(weights)
    assert relative(product(x, y), _slow_cg(product, x, y, ones)) < TOLERANCE


@pytest.mark.parametrize("kind", ["quadrature", "cp"])
@pytest.mark.parametrize("channels_y", [1, 4])
@pytest.mark.parametrize("degrees", DEGREES)
def test_factored_equals_cg_at_gaunt_scales(degrees, channels_y, kind):
    cg, factored = Product("cg", *degrees), Product(kind, *degrees)
    assert factored.num_weights == degrees[1] + 1
    x, y, weights = _operands(degrees, channels_y, factored.num_weights)
    by_path = torch.stack(
        [cg.gaunt_weights[p] * weights[:, l2] for p, (_, l2, _) in enumerate(cg.paths)], dim=1
    )
    assert relative(factored(x, y, weights), cg(x, y, by_path)) < TOLERANCE
    assert relative(factored(x, y), cg(x, y, cg.gaunt_weights[:, None].expand(-1, 4))) < TOLERANCE


@pytest.mark.usefixtures("double_by_default")
def test_cg_equals_e3nn():
    o3 = pytest.importorskip("e3nn.o3")
    product = Product("cg", 2, 3, 2)
    channels = 5
    natural = lambda lmax: [(1 if l % 2 == 0 else -1) for l in range(lmax + 1)]  # noqa: E731
    irreps_x = o3.Irreps([(channels, (l, p)) for l, p in enumerate(natural(2))])
    irreps_y = o3.Irreps([(1, (l, p)) for l, p in enumerate(natural(3))])
    irreps_z = o3.Irreps([(channels, (c, natural(3)[c])) for _, _, c in product.paths])
    instructions = [(a, b, index, "uvu", True) for index, (a, b, _) in enumerate(product.paths)]
    theirs = o3.TensorProduct(
        irreps_x, irreps_y, irreps_z, instructions,
        shared_weights=False, internal_weights=False,
        irrep_normalization="component", path_normalization="none",
    ).double()  # fmt: skip
    x, y, weights = _operands((2, 3, 2), 1, product.num_weights, channels=channels)
    flat = torch.cat([x[:, l * l : (l + 1) ** 2].transpose(1, 2).flatten(1) for l in range(3)], dim=1)
    result = theirs(flat, y[..., 0], weights.flatten(1))
    expected = torch.zeros(len(x), 9, channels, dtype=torch.float64)
    for (_, _, l3), block in zip(product.paths, irreps_z.slices(), strict=True):
        part = result[:, block].reshape(len(x), channels, 2 * l3 + 1).transpose(1, 2)
        expected[:, l3 * l3 : (l3 + 1) ** 2] += part
    assert relative(product(x, y, weights), expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@given(orthogonal_matrices, st.sampled_from(DEGREES), st.sampled_from([1, 4]))
@settings(max_examples=25, deadline=None)
def test_equivariant_under_all_of_o3(kind, matrix, degrees, channels_y):
    product = Product(kind, *degrees)
    x, y, weights = _operands(degrees, channels_y, product.num_weights)
    dx, dy, dz = (representation(l, matrix) for l in degrees)
    assert relative(product(dx @ x, dy @ y, weights), dz @ product(x, y, weights)) < 1e-11


@given(rotations, st.sampled_from([1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_all_paths_are_equivariant_under_rotations_only(matrix, degree):
    product = Product("cp-all", degree, degree, degree)
    x, y, weights = _operands((degree,) * 3, 4, product.num_weights)
    d = representation(degree, matrix)
    out = product(x, y, weights)
    assert relative(product(d @ x, d @ y, weights), d @ out) < 1e-11
    mirror = representation(degree, -matrix)
    assert relative(product(mirror @ x, mirror @ y, weights), mirror @ out) > 1e-3


@pytest.mark.parametrize("kind", [*KINDS, "cp-all"])
def test_derivatives(kind):
    product = Product(kind, 1, 1, 1)
    operands = [o.requires_grad_() for o in _operands((1, 1, 1), 1, product.num_weights, channels=2, nodes=2)]
    assert torch.autograd.gradcheck(product, operands)
    assert torch.autograd.gradgradcheck(product, operands)


@pytest.mark.parametrize("kind", [*KINDS, "cp-all"])
def test_precision_survives_conversion(kind):
    product = Product(kind, 2, 2, 2)
    x, y, weights = _operands((2, 2, 2), 1, product.num_weights)
    expected = product(x, y, weights)
    single = product(x.float(), y.float(), weights.float())
    assert single.dtype == torch.float32
    assert relative(single.double(), expected) < 1e-5
    back = copy.deepcopy(product).float().double()
    torch.testing.assert_close(back(x, y, weights), expected, rtol=0, atol=0)
    assert not product.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_broadcasts_leading_dimensions(kind):
    product = Product(kind, 1, 2, 1)
    x, y, weights = random(2, 5, 4, 3), random(5, 9, 1, seed=1), random(product.num_weights, 3, seed=2)
    out = product(x, y, weights)
    assert out.shape == (2, 5, 4, 3)
    torch.testing.assert_close(out[1, 3], product(x[1, 3], y[3], weights))
    assert product(x[:, :0], y[:0], weights).shape == (2, 0, 4, 3)


def test_paths():
    assert natural_paths(1, 1, 2) == ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2))
    # free path coefficients, all l <= L, even paths only: 4, 11, 23
    assert [len(natural_paths(l, l, l)) for l in (1, 2, 3)] == [4, 11, 23]


@pytest.mark.parametrize(
    ("kind", "one_channel", "many_channels"),
    [("cg", (4, 11, 23), (4, 11, 23)), ("cp", (4, 7, 10), (4, 11, 23)), ("cp-all", (4, 7, 10), (5, 15, 34))],
)
def test_expressivity_as_counted_by_hand(kind, one_channel, many_channels):
    """Free path coefficients; a factored product has one scale per degree of x, y and z, two in common."""
    script = Path(__file__).parents[2] / "examples" / "benchmarks" / "angular_products.py"
    expressivity = runpy.run_path(str(script))["expressivity"]
    for degree, (one, many) in enumerate(zip(one_channel, many_channels, strict=True), start=1):
        expected = {"expressivity_one_channel": one, "expressivity_many_channels": many}
        assert expressivity(kind, degree) == expected


def test_refuses():
    with pytest.raises(InputError, match='`kind` is "svd" but must be one of cg, quadrature, cp, cp-all'):
        Product("svd", 1, 1, 1)
    with pytest.raises(InputError, match="none may be negative"):
        Product("cg", 1, 1, -1)
    product = Product("cp", 1, 1, 1)
    x, y, weights = _operands((1, 1, 1), 1, 2)
    with pytest.raises(
        InputError, match=r"`x` has shape \(3, 3, 4\) but its last but one dimension must be 4"
    ):
        product(x[:, 1:], y, weights)
    with pytest.raises(InputError, match=r"`weights` has shape \(3, 1, 4\)"):
        product(x, y, weights[:, 1:])
    with pytest.raises(InputError, match="`y` has 3 channels but must have 1 or 4 as `x`"):
        product(x, y.expand(-1, -1, 3), weights)
