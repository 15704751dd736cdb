"""Hessian updates: secant condition, symmetry, what each one keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.search import hessian_update
from mlip.search.hessian_update import updated

METHODS = [
    hessian_update.sr1,
    hessian_update.psb,
    hessian_update.bofill,
    hessian_update.ts_bfgs,
    hessian_update.bfgs,
]


def symmetric(random: np.random.Generator, size: int) -> np.ndarray:
    matrix = random.normal(size=(size, size))
    return matrix + matrix.T


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_secant_condition(method, seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 9))
    hessian, step = symmetric(random, size), 0.1 * random.normal(size=size)
    change = symmetric(random, size) @ step
    new = updated(hessian, step, change, method=method)
    np.testing.assert_array_equal(new, new.T)
    tolerance = 1e-9 * (np.linalg.norm(new) * np.linalg.norm(step) + np.linalg.norm(change))
    np.testing.assert_allclose(new @ step, change, atol=tolerance)


def test_a_quadratic_surface_is_learnt_by_sr1() -> None:
    """After as many independent steps as there are coordinates, the Hessian is exact."""
    random = np.random.default_rng(1)
    true, guess = symmetric(random, 5), np.eye(5)
    for _ in range(5):
        step = random.normal(size=5)
        guess = updated(guess, step, true @ step, method=hessian_update.sr1)
    np.testing.assert_allclose(guess, true, atol=1e-9)


def test_bofill_keeps_a_negative_curvature_and_bfgs_a_positive_definite_hessian() -> None:
    hessian = np.diag([-2.0, 1.0, 5.0])
    step = np.array([0.1, 0.02, 0.0])
    new = updated(hessian, step, np.diag([-3.0, 1.5, 5.0]) @ step, method=hessian_update.bofill)
    assert np.linalg.eigvalsh(new)[0] < -2.0
    positive = updated(np.eye(3), step, np.diag([3.0, 1.5, 5.0]) @ step, method=hessian_update.bfgs)
    assert np.linalg.eigvalsh(positive)[0] > 0.0


def test_downhill_stays_positive_definite() -> None:
    """Whatever the surface is like; and is plain BFGS where the curvature is as expected."""
    random = np.random.default_rng(2)
    hessian = np.eye(4)
    for _ in range(30):
        step = 0.1 * random.normal(size=4)
        hessian = hessian_update.downhill(hessian, step, symmetric(random, 4) @ step)
        assert np.linalg.eigvalsh(hessian)[0] > 0.0
    step, change = np.array([0.1, 0.02]), np.array([0.2, 0.01])
    plain = updated(np.eye(2), step, change, method=hessian_update.bfgs)
    np.testing.assert_array_equal(hessian_update.downhill(np.eye(2), step, change), plain)
    indefinite = hessian_update.downhill(np.diag([-1.0, 1.0]), np.array([0.1, 0.0]), np.array([0.3, 0.1]))
    np.testing.assert_allclose(indefinite @ [0.1, 0.0], [0.3, 0.1])


def test_a_step_that_teaches_nothing_changes_nothing() -> None:
    hessian = np.diag([1.0, 2.0])
    step = np.array([0.1, -0.1])
    assert updated(hessian, step, hessian @ step, method=hessian_update.bofill) is hessian


def test_a_wrong_update_is_caught() -> None:
    """A sign error in the last term of TS-BFGS, as found in the wild."""

    def wrong(hessian, step, change):
        right = hessian_update.ts_bfgs(hessian, step, change)
        return right + 0.1 * np.outer(step, step)

    step = np.array([0.1, 0.2])
    with pytest.raises(ArithmeticError, match="misses the secant condition"):
        updated(np.eye(2), step, np.array([0.5, 0.1]), method=wrong)
