"""Learning-rate and weight schedules."""

from __future__ import annotations

import itertools
import math

import pytest

from mlip.training.config import LearningRate
from mlip.training.schedule import final_weight, learning_rate_factor, weight_at


def test_warm_up_is_linear_and_decay_begins_at_one() -> None:
    config = LearningRate(warmup=0.1, decay="cosine", final=0.1)
    factors = [learning_rate_factor(step, 100, config) for step in range(100)]
    assert factors[:10] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))


@pytest.mark.parametrize(
    ("decay", "halfway"), [("cosine", 0.55), ("linear", 0.55), ("exponential", math.sqrt(0.1)), ("none", 1.0)]
)
def test_decays(decay: str, halfway: float) -> None:
    config = LearningRate(warmup=0, decay=decay, final=0.1)
    assert learning_rate_factor(0, 100, config) == 1.0
    assert learning_rate_factor(50, 100, config) == pytest.approx(halfway)
    assert learning_rate_factor(100, 100, config) == pytest.approx(1.0 if decay == "none" else 0.1)


def test_warm_up_in_steps() -> None:
    config = LearningRate(warmup=4, decay="none")
    assert [learning_rate_factor(k, 1000, config) for k in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )


def test_weights_step_at_their_fractions() -> None:
    schedule = [(0.0, 1.0), (0.7, 10.0), (0.9, 100.0)]
    assert [weight_at(schedule, x) for x in (0.0, 0.69, 0.7, 0.89, 0.95)] == [1, 1, 10, 10, 100]
    assert final_weight(schedule) == 100.0
    assert weight_at(3.0, 0.5) == 3.0
