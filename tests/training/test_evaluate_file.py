"""Remarks of `mlip evaluate` on energies that differ by constants."""

from __future__ import annotations

import numpy as np

from mlip.datasets import Frame
from mlip.training.evaluate_file import constant_shift
from mlip.training.evaluation import Predictions


def case(noise: float, shifts: tuple[float, float]) -> tuple[list[Frame], Predictions]:
    random = np.random.default_rng(1)
    counts = random.integers(1, 5, size=(20, 2))
    frames = [Frame(positions=random.normal(size=(a + b, 3)), atomic_numbers=[1] * a + [8] * b, energy=0.0)
              for a, b in counts]  # fmt: skip
    error = counts @ np.array(shifts) + noise * random.normal(size=20)
    sizes = counts.sum(1)
    nothing = np.zeros((int(sizes.sum()), 3))
    return frames, Predictions(error, None, None, sizes, np.zeros(20), nothing, np.zeros((20, 3, 3)))


def test_a_constant_per_element_is_pointed_out() -> None:
    remark = constant_shift(*case(0.01, (-3.0, 7.5)))
    assert remark is not None
    assert "H -3" in remark
    assert "O +7.5" in remark
    assert "Is the zero of energy, or the level of theory" in remark


def test_scatter_and_small_errors_are_not() -> None:
    assert constant_shift(*case(5.0, (0.1, 0.1))) is None
    assert constant_shift(*case(0.001, (0.005, 0.005))) is None
