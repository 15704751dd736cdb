"""Thinning of trajectories and balancing of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlip.datasets import Frame
from mlip.datasets.thin import distance, thin_frames
from mlip.datasets.weights import balance_weights
from mlip.errors import InputError

CELL = np.array([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, 0.3, 6.0]])


def _chain(lengths: list[float], *, energies: list[float] | None = None, **options) -> list[Frame]:
    """A diatomic molecule of changing length: root mean squared distances are half of the difference."""
    options = {"trajectory": "t", **options}
    return [
        Frame(
            positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, length]]),
            atomic_numbers=np.array([1, 1]),
            energy=0.0 if energies is None else energies[i],
            step=i,
            **options,
        )
        for i, length in enumerate(lengths)
    ]


def test_by_distance_and_by_energy() -> None:
    frames = _chain([1.0, 1.05, 1.1, 1.25, 1.3, 1.31, 1.32])
    thinned = thin_frames(frames, rmsd=0.1, energy=1.0)
    assert thinned.places == [0, 3, 6]
    assert thinned.stands_for == [3, 3, 1]
    assert thinned.trajectories == 1
    thinned = thin_frames(
        _chain([1.0] * 6, energies=[0.0, 0.3, 0.6, 0.7, 0.75, 0.8]),
        rmsd=9.0,
        energy=0.5,
        multiply_weights=True,
    )
    assert thinned.places == [0, 2, 5]
    assert [f.weight for f in thinned.frames] == [2.0, 3.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=30),
    rmsd=st.floats(0.0, 0.5),
    seed=st.integers(0, 99),
)
def test_ends_are_kept_and_nothing_is_far_from_what_stands_for_it(
    lengths: list[float], rmsd: float, seed: int
) -> None:
    """In any order of the file; frames outside of trajectories are all kept."""
    frames = [*_chain(lengths), *_chain([1.0] * 3, trajectory="")]
    order = np.random.default_rng(seed).permutation(len(frames)).tolist()
    thinned = thin_frames([frames[i] for i in order], rmsd=rmsd, energy=0.1)
    kept = {order[place] for place in thinned.places}
    assert {0, len(lengths) - 1, *range(len(lengths), len(frames))} <= kept
    assert sum(thinned.stands_for) == len(frames)
    for i in range(len(lengths)):
        before = max(k for k in kept if k <= i)
        assert distance(frames[before], frames[i]) <= rmsd + 1e-9


def test_what_differs_in_kind_is_kept() -> None:
    frames = _chain([1.0] * 5)
    frames[2] = replace(frames[2], energy=None)
    assert thin_frames(frames).places == [0, 2, 3, 4]
    frames[2] = replace(_chain([1.0] * 5)[2], atomic_numbers=np.array([1, 2]))
    assert thin_frames(frames).places == [0, 2, 3, 4]


def test_steps_that_are_unknown_leave_the_order_of_the_file() -> None:
    frames = [replace(f, step=s) for f, s in zip(_chain([1.0, 1.3, 1.0, 1.0]), [3, -1, 1, 0], strict=True)]
    assert thin_frames(frames).places == [0, 1, 2, 3]
    frames = [replace(f, step=s) for f, s in zip(frames, [3, 2, 1, 0], strict=True)]
    assert thin_frames(frames).places == [0, 1, 3]


def _crystal(positions: np.ndarray, cell: np.ndarray = CELL, pbc: object = True) -> Frame:
    return Frame(positions=positions, atomic_numbers=np.ones(len(positions), dtype=int), cell=cell, pbc=pbc)


def test_distance_leaves_out_what_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    positions, step = rng.uniform(0, 4, size=(5, 3)), rng.normal(size=(5, 3)) * 0.01
    step -= step.mean(axis=0)
    size = float(np.sqrt((step**2).sum(axis=1).mean()))
    turned = Rotation.random(rng=1).apply(positions + step) + 3.0
    free = np.zeros((3, 3))
    apart = distance(_crystal(positions, free, False), _crystal(turned, free, False))
    assert 0.3 * size < apart <= size + 1e-12  # the best rotation takes a part of a random step away
    wrapped = positions + step + rng.integers(-2, 3, size=(5, 3)) @ CELL + [0.3, 0.2, 0.1]
    assert distance(_crystal(positions), _crystal(wrapped)) == pytest.approx(size)
    slab = positions + step + rng.integers(-2, 3, size=(5, 2)) @ CELL[:2]
    pbc = [True, True, False]
    assert distance(_crystal(positions, CELL, pbc), _crystal(slab, CELL, pbc)) == pytest.approx(size)
    raised = positions + [[0.0, 0.0, 6.0]] * np.eye(5, 1)
    assert distance(_crystal(positions, CELL, pbc), _crystal(raised, CELL, pbc)) > 2.0


def test_a_strained_cell_counts_by_its_vectors() -> None:
    positions = np.random.default_rng(1).uniform(0, 4, size=(5, 3))
    strain = np.eye(3) * 1.05
    apart = distance(_crystal(positions), _crystal(positions @ strain, CELL @ strain))
    assert apart == pytest.approx(0.05 * np.linalg.norm(CELL, axis=1).max())


@pytest.mark.parametrize(("limits", "name"), [({"rmsd": -1.0}, "rmsd"), ({"energy": float("nan")}, "energy")])
def test_refused_limits(limits: dict[str, float], name: str) -> None:
    with pytest.raises(InputError, match=f"`{name}` is .* but must be 0 or more"):
        thin_frames(_chain([1.0]), **limits)


def test_balanced_weights() -> None:
    frames = [*_chain([1.0] * 6, trajectory="long"), *_chain([1.0] * 2, trajectory="short", weight=3.0)]
    frames.append(_chain([1.0], trajectory="")[0])
    weights = np.array([f.weight for f in balance_weights(frames, by="trajectory")])
    assert weights[:6].sum() == pytest.approx(3.0)
    assert weights[6:8].sum() == pytest.approx(9.0)
    assert weights[8] == pytest.approx(3.0)
    assert [f.weight for f in frames] == [1.0] * 6 + [3.0] * 2 + [1.0]
    with pytest.raises(InputError, match="no frame has a reaction, so that they cannot be weighted by it"):
        balance_weights(frames, by="reaction")
    with pytest.raises(InputError, match="`by` is 'frame' but must be one of group, molecule"):
        balance_weights(frames, by="frame")
