from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlip.datasets import Frame, H5Dataset, H5Writer, frame_digest, read_frames, write_frames
from mlip.errors import InputError


def _many(count: int, *, seed: int = 0) -> list[Frame]:
    """Frames of different sizes, with labels missing here and there; more atoms than fit in one chunk."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        n = int(rng.integers(1, 60))
        frames.append(
            Frame(
                positions=rng.normal(size=(n, 3)),
                atomic_numbers=rng.integers(1, 90, size=n),
                cell=rng.normal(size=(3, 3)),
                pbc=rng.integers(0, 2, size=3).astype(bool),
                energy=float(rng.normal()) if i % 3 else None,
                forces=rng.normal(size=(n, 3)) if i % 5 else None,
                stress=rng.normal(size=(3, 3)) if i % 7 == 0 else None,
                group=f"molecule {i % 11}",
                weight=1.0 + i,
                charge=i % 3 - 1,
                spin=1 + i % 2,
                info={"step": i} if i % 2 else {},
            )
        )
    return frames


def _same(a: Frame, b: Frame) -> bool:
    rest = ("group", "weight", "charge", "spin")
    return (
        frame_digest(a) == frame_digest(b)
        and dict(a.info) == dict(b.info)
        and all(getattr(a, name) == getattr(b, name) for name in rest)
    )


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return _many(1100)


@pytest.fixture(scope="module")
def path(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("h5") / "many.h5"
    write_frames(file, frames, attributes={"level_of_theory": "PBE", "licence": "MIT"})
    return file


def test_random_access_is_bit_for_bit(frames: list[Frame], path: Path) -> None:
    data = H5Dataset(path)
    assert len(data) == len(frames)
    assert sum(len(f) for f in frames) > 3 * 8192  # frames cross the borders of chunks
    for i in np.random.default_rng(1).permutation(len(frames)).tolist():
        assert _same(data[i], frames[i]), i
    assert _same(data[-1], frames[-1])
    assert [f.info for f in data[3:6]] == [f.info for f in frames[3:6]]
    assert data.attributes["level_of_theory"] == "PBE"
    assert json.loads(data.attributes["units"])["forces"] == "eV/Å"
    with pytest.raises(IndexError, match="frame 1100"):
        data[1100]


def test_absent_labels_are_none(frames: list[Frame], path: Path) -> None:
    data = H5Dataset(path)
    assert (data[0].energy, data[0].forces) == (None, None)
    assert data[0].stress is not None
    assert data[1].stress is None


def test_reading_in_order_reports_and_verifies(frames: list[Frame], path: Path) -> None:
    read = read_frames(path)
    assert all(_same(a, b) for a, b in zip(read, frames, strict=True))
    assert read.report.labelled["energy"] == sum(f.energy is not None for f in frames)
    assert "level_of_theory: PBE" in read.report.notes
    H5Dataset(path).verify()


def test_changing_a_frame_does_not_change_the_file(path: Path) -> None:
    before = path.read_bytes()
    frame = H5Dataset(path)[1]
    frame.positions[:] = 0.0  # allowed (no warning from torch), but private to this map
    assert path.read_bytes() == before
    assert H5Dataset(path)[1].positions.any()


def test_pickle_and_fork(path: Path) -> None:
    data = H5Dataset(path)
    wanted = frame_digest(data[5])
    copy = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < 2000
    assert frame_digest(copy[5]) == wanted
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_digest_of, [(data, 5), (data, 5)]) == [wanted, wanted]


def _digest_of(job: tuple[H5Dataset, int]) -> int:
    return frame_digest(job[0][job[1]])


def test_appending(tmp_path: Path, frames: list[Frame]) -> None:
    file = tmp_path / "a.h5"
    for part in (frames[:300], frames[300:301], frames[301:]):
        with H5Writer(file, append=True, attributes={"source": "x"}) as writer:
            writer.write_many(part)
    assert all(_same(a, b) for a, b in zip(H5Dataset(file), frames, strict=True))
    with h5py.File(file) as raw:
        assert raw["group_names"].shape == (11,)
    assert not list(tmp_path.glob(".*"))


def test_without_append_the_file_is_replaced(tmp_path: Path, water: Frame, bare: Frame) -> None:
    write_frames(tmp_path / "a.h5", [water, water])
    write_frames(tmp_path / "a.h5", [bare])
    assert [f.energy for f in H5Dataset(tmp_path / "a.h5")] == [None]


def _stop_after_one_commit(file: Path, committed: Frame, lost: Frame) -> None:
    with H5Writer(file) as writer:
        writer.write(committed)
        writer.commit()
        assert len(H5Dataset(file)) == 1
        writer.write(lost)
        raise RuntimeError("stop")


def test_an_exception_leaves_the_last_commit(tmp_path: Path, water: Frame, bare: Frame) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _stop_after_one_commit(tmp_path / "a.h5", water, bare)
    assert len(H5Dataset(tmp_path / "a.h5")) == 1
    assert not list(tmp_path.glob(".*"))


def test_commits_continue(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    with H5Writer(file) as writer:
        for count in range(1, 4):
            writer.write(water)
            writer.commit()
            assert len(H5Dataset(file)) == count
    assert len(H5Dataset(file)) == 3


def test_killed_while_appending(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, [water])
    script = (
        "import os, signal, sys; from mlip.datasets import H5Dataset, H5Writer\n"
        "w = H5Writer(sys.argv[1], append=True); f = H5Dataset(sys.argv[1])[0]\n"
        "w.write_many([f] * 40000); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    H5Dataset(file).verify()
    assert len(H5Dataset(file)) == 1


def test_two_writers_do_not_lose_frames(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, [water])
    writer = H5Writer(file, append=True)
    writer.write(water)
    write_frames(file, [water] * 3)
    os.utime(file, ns=(1, 1))
    with pytest.raises(InputError, match="was changed by another program"):
        writer.commit()
    assert len(H5Dataset(file)) == 3


def test_attributes_must_agree(tmp_path: Path, water: Frame) -> None:
    write_frames(tmp_path / "a.h5", [water], attributes={"level_of_theory": "PBE"})
    with pytest.raises(
        InputError, match="has level_of_theory 'PBE', so frames of level_of_theory 'HF' cannot"
    ):
        H5Writer(tmp_path / "a.h5", append=True, attributes={"level_of_theory": "HF"})
    with pytest.raises(InputError, match="unknown attribute `author`"):
        H5Writer(tmp_path / "a.h5", attributes={"author": "me"})
    assert not list(tmp_path.glob(".*"))


def test_unwritable_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be 1 to 255"), H5Writer(tmp_path / "a.h5") as writer:
        writer.write(Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([300])))
    with pytest.raises(InputError, match="a frame without atoms"), H5Writer(tmp_path / "a.h5") as writer:
        writer.write(Frame(positions=np.zeros((0, 3)), atomic_numbers=np.array([], dtype=int)))
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_truncated_file(tmp_path: Path, path: Path, share: float) -> None:
    data = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.h5: not a complete HDF5 file"):
        H5Dataset(tmp_path / "cut.h5")


def test_flipped_bit_is_found(tmp_path: Path, path: Path) -> None:
    shutil.copy(path, tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        start = int(file["frames/end"][499])
        file["atoms/positions"][start, 1] += 1e-12
    with pytest.raises(InputError, match="frame 500 does not match its checksum"):
        read_frames(tmp_path / "bad.h5")
    with pytest.raises(InputError, match="frame 500 does not match its checksum"):
        H5Dataset(tmp_path / "bad.h5").verify()


def test_compressed_by_others(tmp_path: Path, path: Path, frames: list[Frame]) -> None:
    with h5py.File(path) as source, h5py.File(tmp_path / "packed.h5", "w") as target:
        target.attrs.update(source.attrs)
        for name in ("frames", "atoms"):
            for key, column in source[name].items():
                target.create_dataset(f"{name}/{key}", data=column[()], compression="gzip")
        target["info"] = source["info"][()]
        target["group_names"] = source["group_names"][()]
    data = H5Dataset(tmp_path / "packed.h5")
    assert all(_same(data[i], frames[i]) for i in (0, 511, 512, 1099))


def _foreign(file: h5py.File) -> None:
    file.attrs["format"] = "other"


def _later(file: h5py.File) -> None:
    file.attrs["version"] = 99


def _without(file: h5py.File) -> None:
    del file["atoms/forces"]


def _linked(file: h5py.File) -> None:
    del file["info"]
    file["info"] = h5py.ExternalLink("/etc/passwd", "/x")


def _short(file: h5py.File) -> None:
    file["frames/energy"].resize(3, axis=0)


def _retyped(file: h5py.File) -> None:
    del file["frames/energy"]
    file["frames/energy"] = np.zeros(1100, dtype=np.float32)


def _disordered(file: h5py.File) -> None:
    file["frames/end"][7] = 10**9


def _grouped(file: h5py.File) -> None:
    file["frames/group"][7] = 99


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _foreign,
            r"an HDF5 file, but not of the polyad-frames layout \(its top-level keys: `atoms`, `frames`",
        ),
        (_later, "has layout version 99, but this program knows 1 to 1; upgrade polyad"),
        (_without, "has no dataset `atoms/forces` of its own"),
        (_linked, "has no dataset `info` of its own"),
        (_short, "`frames/energy` has 3 rows but must have 1100"),
        (_retyped, "`frames/energy` is float32 .* but must be float64 rows"),
        (_disordered, "the index of frames is inconsistent"),
        (_grouped, "points outside `group_names`"),
    ],
)
def test_damaged_or_foreign(tmp_path: Path, path: Path, damage: object, message: str) -> None:
    shutil.copy(path, tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        damage(file)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        H5Dataset(tmp_path / "bad.h5")[0]


def test_empty_file_and_missing_file(tmp_path: Path) -> None:
    H5Writer(tmp_path / "none.h5").commit()
    assert len(H5Dataset(tmp_path / "none.h5")) == 0
    with pytest.raises(InputError, match="holds no frames"):
        read_frames(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        H5Dataset(tmp_path / "nowhere.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="not a complete HDF5 file"):
        read_frames(tmp_path / "text.h5")


def test_without_h5py(path: Path, tmp_path: Path, water: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    for action in (lambda: H5Dataset(path), lambda: write_frames(tmp_path / "a.h5", [water])):
        with pytest.raises(InputError, match=r'need the package h5py: pip install "polyad\[train\]"'):
            action()
