"""Order of the frames."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlip.training.sampling import EpochSampler, sequential_shares


@given(frames=st.integers(1, 40), batch=st.integers(1, 12), world=st.integers(1, 5), epoch=st.integers(0, 3))
def test_processes_share_each_batch(frames: int, batch: int, world: int, epoch: int) -> None:
    ranks = [list(EpochSampler(frames, batch, 7, rank, world).batches(epoch)) for rank in range(world)]
    steps = -(-frames // batch)
    assert all(len(shares) == steps for shares in ranks)
    seen = []
    for step in range(steps):
        counted = np.concatenate([r[step].frames for r in ranks if r[step].counted])
        assert sorted(counted) == sorted(ranks[0][step].whole)
        assert all(len(r[step].frames) > 0 for r in ranks)
        seen.extend(counted.tolist())
    assert sorted(seen) == list(range(frames))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochSampler(50, 5, seed=3)
    assert np.array_equal(sampler.order(2), EpochSampler(50, 7, seed=3, rank=1, world_size=2).order(2))
    assert not np.array_equal(sampler.order(2), sampler.order(3))
    assert not np.array_equal(sampler.order(2), EpochSampler(50, 5, seed=4).order(2))


def test_an_epoch_can_begin_in_the_middle() -> None:
    sampler = EpochSampler(23, 5, seed=0)
    whole = [share.frames.tolist() for share in sampler.batches(1)]
    assert [share.frames.tolist() for share in sampler.batches(1, start=3)] == whole[3:]


@given(frames=st.integers(1, 40), batch=st.integers(1, 12), world=st.integers(1, 5))
def test_sequential_shares_see_each_frame_once(frames: int, batch: int, world: int) -> None:
    seen = [
        i for rank in range(world) for part in sequential_shares(frames, batch, rank, world) for i in part
    ]
    assert sorted(seen) == list(range(frames))
