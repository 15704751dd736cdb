from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import Frame, data_hash, read_frames
from mlip.datasets.statistics import least_squares_e0, summarise
from mlip.errors import InputError


def _molecule(numbers: list[int], energy: float | None) -> Frame:
    positions = np.arange(3.0 * len(numbers)).reshape(-1, 3)
    return Frame(positions=positions, atomic_numbers=np.array(numbers), energy=energy)


def test_least_squares_recovers_atomic_energies() -> None:
    e0 = {1: -13.6, 6: -1029.0, 8: -2042.0}
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        numbers = rng.choice([1, 6, 8], size=rng.integers(1, 12)).tolist()
        frames.append(_molecule(numbers, sum(e0[z] for z in numbers)))
    fitted, rms = least_squares_e0(frames)
    assert fitted == pytest.approx(e0, abs=1e-8)
    assert rms < 1e-9
    facts = summarise(frames)["least_squares_e0"]
    assert facts["determined"]
    assert facts["e0"]["C"] == pytest.approx(-1029.0)


def test_one_composition_determines_nothing() -> None:
    frames = [_molecule([8, 1, 1], -2080.0), _molecule([8, 1, 1], -2082.0)]
    facts = summarise(frames)["least_squares_e0"]
    assert not facts["determined"]
    assert 2 * facts["e0"]["H"] + facts["e0"]["O"] == pytest.approx(-2081.0)
    assert facts["rms_per_atom"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="no frame has an energy"):
        least_squares_e0([_molecule([1], None)])


def test_summary_of_published_data(shared_data: Path) -> None:
    facts = summarise(read_frames(shared_data / "acac" / "isolated_atoms.xyz"))
    assert facts["isolated_atoms"]["H"] == pytest.approx(-13.568422178)
    assert facts["energy_per_atom"] is None
    facts = summarise(read_frames(shared_data / "mlearn" / "Li" / "test.json"))
    assert facts["periodic"] == {"none": 0, "one": 0, "two": 0, "three": 29}
    assert facts["labelled"] == {"energy": 29, "forces": 29, "stress": 29, "hessian": 0}
    assert facts["elements"]["Li"]["frames"] == 29
    json.dumps(facts, allow_nan=False)


def test_data_hash_tells_data_apart(water: Frame, bare: Frame, crystal: Frame) -> None:
    hashes = {data_hash(f) for f in ([water], [bare], [crystal], [water, bare], [bare, water], [])}
    assert len(hashes) == 6
    assert data_hash([water]) == data_hash([water])
    assert (
        data_hash([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )  # SHA-256 of nothing
