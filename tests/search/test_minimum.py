"""True minima: saddles on which symmetry holds a relaxation are left."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from mlip.search.minimum import minimum


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=1.0, epsilon=1.0, rc=50.0)


def test_a_linear_cluster_becomes_a_triangle() -> None:
    """The straight LJ3 is a saddle of index 2 whose forces vanish by symmetry."""
    straight = Atoms("Ar3", positions=[[0, 0, -1.12], [0, 0, 0], [0, 0, 1.12]])
    found = minimum(straight, lennard_jones(), fmax=1e-4)
    assert found.converged
    assert found.escapes >= 1
    assert found.relaxation.energy == pytest.approx(-3.0, abs=1e-6)
    assert found.vibrations is not None
    assert len(found.vibrations.modes.frequencies) == 3
    np.testing.assert_array_equal(straight.positions[1], 0.0)


def test_a_minimum_is_left_alone() -> None:
    found = minimum(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 1.2]]), lennard_jones(), fmax=1e-4)
    assert found.converged
    assert found.escapes == 0


def test_too_few_steps_leave_no_vibrations() -> None:
    found = minimum(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 1.2]]), lennard_jones(), fmax=1e-9, steps=1)
    assert not found.converged
    assert found.vibrations is None
    assert found.relaxation.steps == 1
