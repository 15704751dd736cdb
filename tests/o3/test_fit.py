import numpy as np
import pytest

from mlip.errors import InputError
from mlip.o3.fit import balance, compose, fit_polyadic
from mlip.o3.gaunt import gaunt_tensor


def test_recovers_a_known_decomposition():
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((4, d)) for d in (5, 6, 7))
    fit = fit_polyadic(np.einsum("ri,rj,rk->ijk", a, b, c), 4)
    assert fit.error < 1e-13
    # the decomposition is unique up to order and scale: each component of A is found again, up to its length
    unit = lambda m: m / np.linalg.norm(m, axis=1, keepdims=True)  # noqa: E731
    overlap = np.abs(unit(fit.matrices[0]) @ unit(a).T)
    np.testing.assert_allclose(overlap.max(axis=0), 1, atol=1e-9)


@pytest.mark.parametrize(("degrees", "rank"), [((1, 1, 1), 6), ((1, 1, 2), 9), ((1, 2, 2), 12)])
def test_gaunt_tensor_at_the_shipped_rank(degrees, rank):
    target = gaunt_tensor(*degrees).numpy()
    fit = fit_polyadic(target, rank, seed=1)
    assert fit.error < 1e-13
    assert fit.largest < 3
    np.testing.assert_allclose(compose(fit.matrices), target, atol=1e-12)
    lengths = [np.linalg.norm(m, axis=1) for m in fit.matrices]
    np.testing.assert_allclose(lengths[0], lengths[1])
    np.testing.assert_allclose(lengths[0], lengths[2])


def test_one_less_is_not_exact_and_components_that_diverge_are_reported():
    fit = fit_polyadic(gaunt_tensor(1, 1, 1).numpy(), 5, starts=2)
    assert fit.error > 1e-5
    # a tensor of rank 3 that rank 2 approaches without end: only diverging components do it
    limit = np.zeros((2, 2, 2))
    limit[1, 0, 0] = limit[0, 1, 0] = limit[0, 0, 1] = 1
    assert fit_polyadic(limit, 3, starts=5).error < 1e-13
    degenerate = fit_polyadic(limit, 2, starts=2)
    assert degenerate.error > 1e-13
    assert degenerate.largest > 3


def test_same_seed_same_fit_and_report():
    lines: list[str] = []
    target = gaunt_tensor(1, 1, 1).numpy()
    first, second = (fit_polyadic(target, 6, seed=4, report=lines.append) for _ in range(2))
    np.testing.assert_array_equal(first.matrices[0], second.matrices[0])
    assert lines[0].startswith("rank 6 start 0: error")


def test_balance_keeps_the_tensor():
    rng = np.random.default_rng(0)
    matrices = tuple(rng.standard_normal((3, d)) * 10**d for d in (1, 2, 3))
    np.testing.assert_allclose(compose(balance(matrices)), compose(matrices))


def test_refuses():
    with pytest.raises(InputError, match="must have three indices, be finite and not zero"):
        fit_polyadic(np.zeros((2, 2, 2)), 1)
    with pytest.raises(InputError, match="`rank` is 0"):
        fit_polyadic(np.ones((2, 2, 2)), 0)
