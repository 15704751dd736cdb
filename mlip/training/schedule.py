"""Quantities that change during a run: the learning rate and the weights of the loss."""

from __future__ import annotations

import math

from mlip.training.config import LearningRate, Schedule


def learning_rate_factor(step: int, total_steps: int, config: LearningRate) -> float:
    r"""Learning rate of one optimiser step, relative to ``optimizer.lr``.

    Linear warm-up over the first ``warmup`` steps, then, with $t \in [0, 1]$ the fraction of the remaining
    steps done and $f$ = ``final``: cosine $f + (1-f)(1+\cos \pi t)/2$, linear $1-(1-f)t$, exponential $f^t$.

    Args:
        step: Steps already taken, from 0.
        total_steps: Steps of the whole run.
        config: Warm-up, decay and final factor.

    Source: warm-up and cosine decay as in Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    warmup = config.warmup * total_steps if config.warmup < 1 else config.warmup
    warmup = min(round(warmup), total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    t = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    f = config.final
    if config.decay == "cosine":
        return f + (1 - f) * 0.5 * (1 + math.cos(math.pi * t))
    if config.decay == "linear":
        return 1 - (1 - f) * t
    if config.decay == "exponential":
        return f**t
    return 1.0


def weight_at(schedule: Schedule, fraction: float) -> float:
    """Weight of a loss term when ``fraction`` of the run is done."""
    if not isinstance(schedule, list):
        return schedule
    return [value for start, value in schedule if start <= fraction + 1e-12][-1]


def final_weight(schedule: Schedule) -> float:
    """Weight of a loss term at the end of the run."""
    return weight_at(schedule, 1.0)
