"""The data section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import Frame
from mlip.datasets.write import write_frames
from mlip.errors import InputError
from mlip.training.config import Data
from mlip.training.data import check_species, data_hash, read_training_frames
from mlip.training.loss import Labels

BOTH = Labels(energy=True, forces=True, stress=False)


def read(data: Data, labels: Labels = BOTH):
    lines: list[str] = []
    return read_training_frames(data, labels, lines.append), lines


def test_validation_frames_are_held_out(data_file: Path) -> None:
    found, lines = read(Data(train=data_file, valid=4))
    assert (len(found.train), len(found.valid)) == (19, 4)
    seeds = [f.info["seed"] for f in [*found.train, *found.valid]]
    assert sorted(seeds) == list(range(23))
    again, _ = read(Data(train=data_file, valid=4))
    assert [f.info["seed"] for f in again.valid] == [f.info["seed"] for f in found.valid]
    other, _ = read(Data(train=data_file, valid=4, split_seed=1))
    assert [f.info["seed"] for f in other.valid] != [f.info["seed"] for f in found.valid]
    assert any("energy: 23 of 23 frames, read from" in line for line in lines)


def test_files_fractions_and_fewer_frames(data_file: Path) -> None:
    found, _ = read(Data(train=data_file, valid=data_file, test={"hot": data_file}, max_frames=10))
    assert (len(found.train), len(found.valid), len(found.tests["hot"])) == (10, 23, 23)
    found, _ = read(Data(train=data_file, valid=0.25, max_frames=8))
    assert (len(found.train), len(found.valid)) == (6, 2)
    assert list(Data(train=data_file, valid=1, test=[data_file]).test_files()) == ["frames"]


def test_isolated_atoms_are_set_aside(tmp_path: Path, frames: list[Frame]) -> None:
    path = tmp_path / "with_atoms.xyz"
    one = Frame(np.zeros((1, 3)), np.array([1]), energy=-13.5, info={"config_type": "IsolatedAtom"})
    write_frames(path, [one, *frames])
    found, _ = read(Data(train=path, valid=3))
    assert len(found.train) + len(found.valid) == 23
    assert [f.energy for f in found.isolated] == [-13.5]


def test_isolated_atoms_need_no_cell(tmp_path: Path, crystals: list[Frame]) -> None:
    path = tmp_path / "with_atoms.xyz"
    one = Frame(np.zeros((1, 3)), np.array([1]), energy=-13.5, info={"config_type": "IsolatedAtom"})
    write_frames(path, [one, *crystals])
    found, _ = read(Data(train=path, valid=2), Labels(energy=True, forces=True, stress=True))
    assert len(found.train) == 5


def test_weights_and_splits_by_trajectory(tmp_path: Path, frames: list[Frame]) -> None:
    path = tmp_path / "paths.xyz"
    write_frames(path, [replace(f, trajectory=f"t{i % 4}" if i < 12 else "t4") for i, f in enumerate(frames)])
    found, _ = read(Data(train=path, valid=0.3, split_by="trajectory", weights="trajectory"))
    names = [{f.trajectory for f in part} for part in (found.train, found.valid)]
    assert not names[0] & names[1]
    assert {f.weight for f in found.valid} == {1.0}
    totals = [sum(f.weight for f in found.train if f.trajectory == name) for name in sorted(names[0])]
    np.testing.assert_allclose(totals, len(found.train) / len(names[0]))
    with pytest.raises(InputError, match="no frame has a reaction, so that they cannot be weighted by it"):
        read(Data(train=path, valid=0.3, weights="reaction"))


def test_groups_stay_together_by_default(tmp_path: Path, data_file: Path, frames: list[Frame]) -> None:
    path = tmp_path / "groups.xyz"
    write_frames(path, [replace(f, group=f"g{i // 4}") for i, f in enumerate(frames)])
    found, lines = read(Data(train=path, valid=4))
    groups = [{f.group for f in part} for part in (found.train, found.valid)]
    assert not groups[0] & groups[1]
    assert "  4 of 23 frames held out for validation, split by group" in lines
    found, lines = read(Data(train=path, valid=4, split_by="frame"))
    groups = [{f.group for f in part} for part in (found.train, found.valid)]
    assert groups[0] & groups[1]
    assert "  4 of 23 frames held out for validation, split by frame" in lines
    _, lines = read(Data(train=data_file, valid=4))
    assert "  4 of 23 frames held out for validation, split by frame" in lines
    write_frames(path, [replace(f, group="all") for f in frames])
    with pytest.raises(InputError, match=r"groups\.xyz, `data\.split_by: group`: 1 group sets of 23 frames"):
        read(Data(train=path, valid=4))


def test_a_test_set_does_not_hide_the_validation_frames(data_file: Path, tmp_path: Path, frames) -> None:
    write_frames(tmp_path / "new.xyz", [replace(f, positions=f.positions * 1.01) for f in frames])
    _, lines = read(Data(train=data_file, valid=data_file, test={"validation": tmp_path / "new.xyz"}))
    assert "  warning: 23 of 23 validation frames are training frames, too" in lines


def test_copies_of_training_frames_are_pointed_out(tmp_path: Path, data_file: Path, frames) -> None:
    write_frames(tmp_path / "valid.xyz", frames[20:])
    _, lines = read(Data(train=data_file, valid=tmp_path / "valid.xyz", test={"hot": data_file}))
    assert "  warning: 3 of 3 validation frames are training frames, too" in lines
    assert "  warning: 23 of 23 hot frames are training frames, too" in lines
    _, lines = read(Data(train=data_file, valid=4))
    assert not any("warning" in line for line in lines)


def test_refusals(tmp_path: Path, data_file: Path, frames: list[Frame], crystals: list[Frame]) -> None:
    with pytest.raises(InputError, match=r"data file '.*none\.xyz' does not exist"):
        read(Data(train=tmp_path / "none.xyz", valid=1))
    with pytest.raises(InputError, match=r"`data\.valid` is 23 but .* has 23 frames"):
        read(Data(train=data_file, valid=23))
    with pytest.raises(InputError, match=r"no frame has a stress, but `loss\.stress` is above 0"):
        read(Data(train=data_file, valid=1), Labels(energy=True, forces=True, stress=True))
    mixed = tmp_path / "mixed.xyz"
    write_frames(mixed, [*crystals, *frames])
    with pytest.raises(InputError, match=r"frame 7 has no cell and therefore no stress, but `loss\.stress`"):
        read(Data(train=mixed, valid=1), Labels(energy=True, forces=True, stress=True))
    with pytest.raises(InputError, match="no frame has the energy key `dft`"):
        read(Data.model_validate({"train": data_file, "valid": 1, "keys": {"energy": "dft"}}))
    bare = tmp_path / "bare.xyz"
    write_frames(bare, [Frame(f.positions, f.atomic_numbers, energy=f.energy) for f in frames])
    with pytest.raises(InputError, match="23 of 23 frames have no forces"):
        read(Data(train=bare, valid=1))
    energies_only, _ = read(Data(train=bare, valid=1), Labels(energy=True, forces=False, stress=False))
    assert len(energies_only.train) == 22


def test_differing_charges_are_told(tmp_path: Path, data_file: Path, frames: list[Frame]) -> None:
    charged = tmp_path / "charged.xyz"
    write_frames(charged, [*frames[:-3], *(replace(f, charge=-1, spin=2) for f in frames[-3:])])
    _, said = read(Data(train=charged, valid=data_file))
    expected = (
        "differ in charge and spin (2S + 1), of which the model is not told: +0 and 1 (20), -1 and 2 (3);"
    )
    assert any(expected in line for line in said)
    _, said = read(Data(train=data_file, valid=data_file))
    assert not any("differ in charge" in line for line in said)


def test_unknown_species(frames: list[Frame]) -> None:
    check_species(frames, (1, 8), "hot")
    with pytest.raises(
        InputError, match=r"hot: frame 0 contains O, but the training data only has H, C; add"
    ):
        check_species(frames, (1, 6), "hot")


def test_hash_sees_labels(frames: list[Frame]) -> None:
    changed = [*frames[:-1], Frame(frames[-1].positions, frames[-1].atomic_numbers, energy=0.0)]
    assert data_hash(frames) == data_hash(list(frames))
    assert data_hash(frames) != data_hash(changed)
