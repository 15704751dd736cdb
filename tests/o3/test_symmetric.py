import itertools

import pytest
import torch
from hypothesis import given, settings
from orthogonal_group import TOLERANCE, orthogonal_matrices, random, relative

from mlip.errors import InputError
from mlip.o3 import SymmetricContraction, representation, symmetric_coupling

SPECIES = torch.tensor([0, 2, 1, 0, 2])


@pytest.mark.parametrize(("degree", "paths"), [(0, (1, 4, 8)), (1, (1, 3, 12)), (2, (1, 5, 14))])
def test_number_of_paths_as_published_for_lmax_3(degree, paths):
    assert tuple(symmetric_coupling(3, degree, order).shape[0] for order in (1, 2, 3)) == paths


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_symmetric_orthogonal_and_complete(degree, order):
    lmax = 2
    basis = symmetric_coupling(lmax, degree, order)
    for permutation in itertools.permutations(range(2, 2 + order)):
        torch.testing.assert_close(basis.permute(0, 1, *permutation), basis, rtol=0, atol=1e-13)
    flat = basis.flatten(1)
    expected = (2 * degree + 1) * torch.eye(len(flat), dtype=torch.float64)
    torch.testing.assert_close(flat @ flat.T, expected, rtol=0, atol=1e-12)
    assert len(flat) == _invariant_count(lmax, degree, order)


def _invariant_count(lmax, degree, order):
    """Multiplicity of the degree in the symmetric power, by characters integrated over O(3)."""
    angles = torch.linspace(0, torch.pi, 4001, dtype=torch.float64)
    measure = (1 - torch.cos(angles)) / torch.pi * (angles[1] - angles[0])
    measure[[0, -1]] /= 2
    total = 0.0
    for sign in (1, -1):
        all_degrees = [
            sum(_character(l, power, sign, angles) for l in range(lmax + 1)) for power in range(1, 4)
        ]
        a, b, c = all_degrees
        symmetric = {1: a, 2: (a**2 + b) / 2, 3: (a**3 + 3 * a * b + 2 * c) / 6}[order]
        total += float((measure * symmetric * _character(degree, 1, sign, angles)).sum()) / 2
    return round(total)


def _character(l, power, sign, angles):
    """Trace of the power of a rotation by the angles, times the inversion for sign -1, in natural parity."""
    return sign ** (l * power) * (1 + 2 * sum(torch.cos(m * power * angles) for m in range(1, l + 1)))


def _slow(module, features, species):
    """Twin of the module: dense tensors, no monomials."""
    results = []
    for degree, weights in enumerate(module.weights):
        total, start = 0.0, 0
        for order in range(1, module.correlation + 1):
            coupling = symmetric_coupling(module.lmax_in, degree, order)
            chosen = weights[species][:, start : start + len(coupling)]
            start += len(coupling)
            equation = {1: "pMi,npc,nic->nMc", 2: "pMij,npc,nic,njc->nMc", 3: "pMijk,npc,nic,njc,nkc->nMc"}
            total = total + torch.einsum(equation[order], coupling, chosen, *[features] * order)
        results.append(total)
    return torch.cat(results, dim=1)


@pytest.mark.parametrize(
    ("lmax_in", "lmax_out", "correlation"), [(3, 2, 3), (2, 2, 2), (2, 3, 1), (0, 0, 3), (0, 1, 2), (1, 4, 3)]
)
def test_against_slow_twin(lmax_in, lmax_out, correlation):
    module = SymmetricContraction(lmax_in, lmax_out, correlation, 4, 3).double()
    features = random(5, (lmax_in + 1) ** 2, 4)
    expected = _slow(module, features, SPECIES)
    assert relative(module(features, SPECIES), expected) < TOLERANCE


@given(orthogonal_matrices)
@settings(max_examples=20, deadline=None)
def test_equivariant_under_all_of_o3(matrix):
    module = SymmetricContraction(3, 2, 3, 2, 3).double()
    features = random(5, 16, 2)
    turned = module(representation(3, matrix) @ features, SPECIES)
    assert relative(turned, representation(2, matrix) @ module(features, SPECIES)) < 1e-11


def test_derivatives():
    module = SymmetricContraction(1, 1, 3, 2, 3).double()
    features = random(2, 4, 2).requires_grad_()
    function = lambda a: module(a, SPECIES[:2])  # noqa: E731
    assert torch.autograd.gradcheck(function, features)
    assert torch.autograd.gradgradcheck(function, features)


def test_single_precision_state_and_empty():
    module = SymmetricContraction(2, 1, 3, 4, 3)
    assert sorted(module.state_dict()) == ["weights.0", "weights.1"]
    assert module(random(5, 9, 4).float(), SPECIES).dtype == torch.float32
    assert module(random(0, 9, 4).float(), SPECIES[:0]).shape == (0, 4, 4)


def test_refuses():
    with pytest.raises(InputError, match="`correlation` is 4 but must be 1, 2 or 3"):
        SymmetricContraction(2, 1, 4, 4, 3)
    with pytest.raises(InputError, match="none may be negative"):
        symmetric_coupling(-1, 0, 1)
    with pytest.raises(InputError, match="`num_channels` is 0"):
        SymmetricContraction(2, 1, 2, 0, 3)
    with pytest.raises(
        InputError, match=r"`features` has shape \(5, 4, 4\) but must be \(nodes, 9, channels\)"
    ):
        SymmetricContraction(2, 1, 2, 4, 3)(random(5, 4, 4), SPECIES)
