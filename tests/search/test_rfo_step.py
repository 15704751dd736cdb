"""Restricted steps: against the dense eigenvalue problem they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.search.rfo_step import lowest_root, restricted_step


def problem(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.sort(random.normal(scale=10.0, size=size)), random.normal(size=size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.0, 8.0))
def test_lowest_root_is_that_of_the_augmented_hessian(seed: int, size: int, log_alpha: float) -> None:
    values, gradient = problem(seed, size)
    alpha = float(np.exp(log_alpha))
    augmented = np.zeros((size + 1, size + 1))
    augmented[:size, :size] = np.diag(values) / alpha
    augmented[size, :size] = augmented[:size, size] = gradient / np.sqrt(alpha)
    lowest = np.linalg.eigvalsh(augmented)[0]
    assert lowest_root(values, gradient, alpha) == pytest.approx(alpha * lowest, rel=1e-8, abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.001, 1.0), st.booleans())
def test_step_keeps_to_the_radius_and_goes_the_right_way(
    seed: int, size: int, radius: float, saddle: bool
) -> None:
    values, gradient = problem(seed, size)
    uphill = int(seed % size) if saddle else None
    step = restricted_step(values, gradient, radius, uphill=uphill)
    norm = np.linalg.norm(step.vector)
    assert norm <= radius * (1.0 + 1e-9)
    if step.restricted:
        assert norm == pytest.approx(radius, rel=1e-4)
    goes_up = np.sign(step.vector) == np.sign(gradient)
    assert goes_up.tolist() == [mode == uphill for mode in range(size)]
    if not saddle:
        assert step.predicted_change < 0.0
    expected = gradient @ step.vector + 0.5 * step.vector @ np.diag(values) @ step.vector
    assert step.predicted_change == pytest.approx(expected)


def test_near_a_stationary_point_it_is_newton() -> None:
    values, gradient = np.array([-2.0, 1.0, 30.0]), np.array([1e-5, -2e-5, 3e-5])
    step = restricted_step(values, gradient, 0.3, uphill=0)
    np.testing.assert_allclose(step.vector, -gradient / values, rtol=1e-6)
    assert not step.restricted


def test_a_mode_that_the_gradient_does_not_see_stays_at_rest() -> None:
    step = restricted_step(np.array([-1.0, 2.0]), np.array([0.0, 0.5]), 0.3)
    assert step.vector[0] == 0.0
    assert step.vector[1] < 0.0
    assert not restricted_step(np.array([-1.0, 2.0]), np.zeros(2), 0.3).vector.any()
