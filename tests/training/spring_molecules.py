"""Molecules of springs: labels with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlip.datasets import Frame

E0 = {1: -13.5, 8: -430.0}


def springs(positions: np.ndarray, numbers: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å) of springs between all pairs, plus E0s: labels with a known answer."""
    energy, forces = sum(E0[int(z)] for z in numbers), np.zeros_like(positions)
    for i in range(len(numbers)):
        for j in range(i):
            d = positions[i] - positions[j]
            r = np.linalg.norm(d)
            energy += 2.0 * (r - 1.2) ** 2 - 1.0
            f = -4.0 * (r - 1.2) * d / r
            forces[i] += f
            forces[j] -= f
    return energy, forces


def water(seed: int, *, periodic: bool = False) -> Frame:
    """A distorted water, or every third time a hydroxyl; with a stress if periodic."""
    rng = np.random.default_rng(seed)
    size = 2 if seed % 3 == 2 else 3
    numbers = np.array([8, 1, 1])[:size]
    positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])[:size] + rng.normal(0, 0.1, (size, 3))
    energy, forces = springs(positions, numbers)
    box: dict[str, Any] = {}
    if periodic:
        strain = rng.normal(0, 0.01, (3, 3))
        box = {"cell": 4.0 * np.eye(3), "pbc": np.ones(3, bool), "stress": 0.01 * (strain + strain.T)}
    return Frame(
        positions=positions, atomic_numbers=numbers, energy=energy, forces=forces, info={"seed": seed}, **box
    )
