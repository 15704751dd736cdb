from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mlip.datasets import (
    Frame,
    H5Dataset,
    H5Writer,
    frame_digest,
    h5_journal,
    h5_writer,
    read_frames,
    write_frames,
)
from mlip.datasets import h5_schema as schema
from mlip.datasets.h5_journal import journal_name
from mlip.errors import InputError

KILLS = 12
"""Moments at which a writer is killed, of the some hundred that there are."""


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
                hessian=_symmetric(rng, 3 * n) if i % 9 == 0 else None,
                group=f"molecule {i % 11}" if i % 4 else "",
                molecule=f"m{i % 22}" if i % 2 else "",
                reaction=f"r{i % 5}" if i % 6 == 0 else "",
                trajectory=f"t{i // 10}",
                step=i % 10 - 1,
                weight=1.0 + i,
                charge=i % 3 - 1,
                spin=1 + i % 2,
                info={"count": i} if i % 2 else {},
            )
        )
    return frames


def _symmetric(rng: np.random.Generator, size: int) -> np.ndarray:
    """A Hessian of numbers that float32 holds exactly."""
    half = rng.normal(size=(size, size)).astype(np.float32).astype(np.float64)
    return np.triu(half) + np.triu(half, 1).T


def _same(a: Frame, b: Frame) -> bool:
    rest = ("group", "molecule", "reaction", "trajectory", "step", "weight", "charge", "spin")
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
        names = {name for f in frames for name in (f.group, f.molecule, f.reaction, f.trajectory)}
        assert raw["names/end"].shape == (len(names - {""}),)
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
    size = file.stat().st_size
    script = (
        "import os, signal, sys; from mlip.datasets import H5Dataset, H5Writer, h5_writer\n"
        "h5_writer._BUFFERED_ATOMS = 3000\n"
        "w = H5Writer(sys.argv[1], append=True); f = H5Dataset(sys.argv[1])[0]\n"
        "w.write_many([f] * 4000); w.commit(); w.write_many([f] * 4000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(H5Dataset(file)) == 4001
    H5Dataset(file).verify()
    killed = file.stat().st_size
    assert killed > 2 * size
    with H5Writer(file, append=True) as writer:  # what the killed one left behind is written over
        writer.write(water)
    assert file.stat().st_size < killed
    assert len(H5Dataset(file)) == 4002


def _append(file: Path, frames: list[Frame], *, killed_at: int | None = None) -> int:
    """Two commits in a child process, which is killed at its n-th change of any file.

    Returns:
        How many changes it made.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            count = len(pipe.read())
        os.waitpid(child, 0)
        return count

    def guarded(call: Any) -> Any:
        def run(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            os.write(writing, b".")
            return call(*arguments)

        return run

    left = -1 if killed_at is None else killed_at
    for name in ("pwrite", "ftruncate", "fsync", "unlink"):
        setattr(os, name, guarded(getattr(os, name)))
    with H5Writer(file, append=True) as writer:
        for frame in frames:
            writer.write(frame)
            writer.commit()
    os._exit(0)


def test_killed_at_any_write(tmp_path: Path, frames: list[Frame]) -> None:
    """Whatever change of a file is the last one: the state is that of a commit, for readers and writers."""
    start = tmp_path / "start.h5"
    write_frames(start, frames[:20])
    shutil.copy(start, tmp_path / "whole.h5")
    changes = _append(tmp_path / "whole.h5", frames[20:22])
    assert len(H5Dataset(tmp_path / "whole.h5")) == 22
    seen = {22}
    digests = [frame_digest(f) for f in frames[:22]]
    for killed_at in range(0, changes, 1 + changes // KILLS):
        file = tmp_path / f"{killed_at}.h5"
        shutil.copy(start, file)
        assert _append(file, frames[20:22], killed_at=killed_at) == killed_at
        data = H5Dataset(file)
        seen.add(len(data))
        assert [frame_digest(f) for f in data] == digests[: len(data)]
        with H5Writer(file, append=True) as writer:
            assert len(writer) == len(data)
            writer.write_many(frames[len(data) : 22])
        assert [frame_digest(f) for f in H5Dataset(file)] == digests
        with h5py.File(file) as raw:
            assert raw["frames/end"].shape == (22,)
    assert seen == {20, 21, 22}
    assert not list(tmp_path.glob(".*"))


def _commit_and_stop_before_applying(file: Path, frames: list[Frame]) -> bytes:
    """The journal as a power failure leaves it, when the file has only got what lies behind its end."""
    writer = H5Writer(file, append=True)
    writer.write_many(frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5_journal, "_runs", lambda pages: (_ for _ in ()).throw(OSError("power")))
        with contextlib.suppress(OSError):
            writer.commit()
        writer.close()
    return journal_name(file).read_bytes()


def test_a_commit_that_is_only_in_the_journal(tmp_path: Path, frames: list[Frame]) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, frames[:3])
    journal = _commit_and_stop_before_applying(file, frames[3:5])
    H5Dataset(file).verify()
    assert all(_same(a, b) for a, b in zip(H5Dataset(file), frames[:5], strict=True))
    with H5Writer(file, append=True) as writer:
        writer.write(frames[5])
    assert not list(tmp_path.glob(".*"))
    assert all(_same(a, b) for a, b in zip(H5Dataset(file), frames[:6], strict=True))
    journal_name(file).write_bytes(journal)  # one of an earlier state: not for this file any more
    assert len(H5Dataset(file)) == 6
    journal_name(file).write_bytes(journal[:-1])
    assert len(H5Dataset(file)) == 6


def test_readers_while_a_writer_commits(tmp_path: Path, frames: list[Frame]) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, frames[:1])
    script = (
        "import sys; from mlip.datasets import H5Dataset, H5Writer\n"
        "f = H5Dataset(sys.argv[1])[0]\n"
        "with H5Writer(sys.argv[1], append=True) as w:\n"
        "    for i in range(30):\n"
        "        w.write(f); w.commit()\n"
    )
    lengths = []
    with subprocess.Popen([sys.executable, "-c", script, str(file)]) as writing:
        while writing.poll() is None:
            data = H5Dataset(file)
            data.verify()
            lengths.append(len(data))
            time.sleep(0.02)
    assert writing.returncode == 0
    assert lengths == sorted(lengths)
    assert len(H5Dataset(file)) == 31


def test_one_writer(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, [water])
    with H5Writer(file, append=True) as writer:
        writer.write(water)
        for other in (lambda: H5Writer(file, append=True), lambda: write_frames(file, [water])):
            with pytest.raises(InputError, match=r"a\.h5: another program is writing to it"):
                other()
    assert len(H5Dataset(file)) == 2


def test_a_file_that_was_replaced_is_left_alone(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, [water])
    data = H5Dataset(file)
    writer = H5Writer(file, append=True)
    writer.write(water)
    file.unlink()
    with h5py.File(file, "w") as other:
        other["x"] = 1
    with pytest.raises(InputError, match="was replaced by another program"):
        writer.commit()
    writer.close()
    with pytest.raises(InputError, match="writer is closed"):
        writer.commit()
    with h5py.File(file) as other:
        assert list(other) == ["x"]
    file.unlink()
    write_frames(file, [])
    with pytest.raises(InputError, match="has 0 frames, but had 1 when it was opened first"):
        data[0]


def test_a_dataset_is_of_one_moment(tmp_path: Path, frames: list[Frame]) -> None:
    file = tmp_path / "a.h5"
    write_frames(file, frames[:3])
    early, opened = H5Dataset(file), H5Dataset(file)
    assert _same(opened[2], frames[2])
    with H5Writer(file, append=True) as writer:
        writer.write_many(frames[3:400])
    assert len(early) == len(opened) == 3
    assert all(_same(a, b) for data in (early, opened) for a, b in zip(data, frames[:3], strict=True))


def test_appending_does_not_rewrite(tmp_path: Path, frames: list[Frame]) -> None:
    """The bytes of whole chunks stay where they are: a commit costs what it adds."""
    file = tmp_path / "a.h5"
    write_frames(file, frames)
    before = file.read_bytes()
    with H5Writer(file, append=True) as writer:
        writer.write(frames[0])
        assert writer._medium is not None
        writer._flush()
        assert len(writer._medium._own) * 4096 < 1_500_000  # the last chunk of every column
    after = file.read_bytes()
    assert len(after) - len(before) < 1_000_000


def test_names_are_remembered_and_found(
    tmp_path: Path, water: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5_writer, "_REMEMBERED_NAMES", 3)
    file = tmp_path / "a.h5"
    names = ["a", "b", "a", "ü", "d", "e", "a", "", "b"]
    for part in (names[:4], names[4:]):
        with H5Writer(file, append=True) as writer:
            writer.write_many(replace(water, group="x", molecule=name) for name in part)
    data = H5Dataset(file)
    assert [f.molecule for f in data] == names
    index = data.index_by("molecule")
    assert index[7] == -1
    same = [[a == b for a in names] for b in names]
    assert (index[:, None] == index).tolist() == same
    with pytest.raises(InputError, match="`key` is 'step' but must be one of group, molecule"):
        data.index_by("step")


def test_provenance(tmp_path: Path, water: Frame) -> None:
    file = tmp_path / "a.h5"
    with H5Writer(file) as writer:
        writer.provenance = {"inputs": ["a" * 10_000], "α": 1}
    with H5Writer(file, append=True) as writer:
        assert writer.provenance["α"] == 1
        writer.provenance = {"inputs": []}
        writer.write(water)
    assert H5Dataset(file).provenance() == {"inputs": []}


def _version_1(path: Path, frames: list[Frame]) -> None:
    """A file as version 1 laid it out."""
    write_frames(path, frames)
    with h5py.File(path, "r+") as file:
        names = [f.group for f in frames]
        for name in set(schema.COLUMNS) - set(schema.columns(1)):
            del file[name]
        del file["names"]
        file["group_names"] = np.array(sorted(set(names)), dtype=object)
        file["frames/group"][:] = [sorted(set(names)).index(n) for n in names]
        file.attrs["version"] = 1


def test_version_1(tmp_path: Path, frames: list[Frame]) -> None:
    file = tmp_path / "a.h5"
    old = [
        replace(f, molecule="", reaction="", trajectory="", step=-1, hessian=None, group=f.group if i else "")
        for i, f in enumerate(frames[:600])
    ]
    _version_1(file, old)
    assert all(_same(a, b) for a, b in zip(H5Dataset(file), old, strict=True))
    data = H5Dataset(file)
    assert (data.index_by("molecule") == -1).all()
    assert len(set(data.index_by("group").tolist())) == len({f.group for f in old})
    assert data.provenance() == {}
    with H5Writer(file, append=True) as writer:
        writer.write_many(frames[600:700])
    data = H5Dataset(file)
    assert data.attributes["version"] == 2
    assert all(_same(a, b) for a, b in zip(data, [*old, *frames[600:700]], strict=True))
    data.verify()


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
        for name in ("frames", "atoms", "names"):
            for key, column in source[name].items():
                target.create_dataset(f"{name}/{key}", data=column[()], compression="gzip")
        for name in ("info", "hessians", "provenance"):
            target[name] = source[name][()]
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


def _no_json(file: h5py.File) -> None:
    file["info"][:] = ord("[")


def _no_text(file: h5py.File) -> None:
    file["info"][:] = 0xFF


def _grouped(file: h5py.File) -> None:
    file["frames/group"][7] = 999_999


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _foreign,
            r"an HDF5 file, but not of the polyad-frames layout \(its top-level keys: `atoms`, `frames`",
        ),
        (_later, "has layout version 99, but this program knows 1 to 2; upgrade polyad"),
        (_without, "has no dataset `atoms/forces` of its own"),
        (_linked, "has no dataset `info` of its own"),
        (_short, "`frames/energy` has 3 rows but must have 1100"),
        (_retyped, "`frames/energy` is float32 .* but must be float64 rows"),
        (_disordered, r"the index is inconsistent \(`frames/end` at 7\)"),
        (_no_json, r"bad\.h5: `info` of frame 7 is not JSON \(.*; the file is damaged"),
        (_no_text, r"bad\.h5: `info` of frame 7 is not JSON \(.*; the file is damaged"),
        (_grouped, "`frames/group` points outside the names"),
    ],
)
def test_damaged_or_foreign(tmp_path: Path, path: Path, damage: object, message: str) -> None:
    shutil.copy(path, tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        damage(file)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        H5Dataset(tmp_path / "bad.h5")[7]


@pytest.mark.parametrize("kept", [0, 512, 900, 1001, 1100])
@pytest.mark.parametrize("buffered", [3000, 1_000_000])
def test_truncate(
    tmp_path: Path, frames: list[Frame], kept: int, buffered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 900 committed frames and 200 that are not, some of which are in the buffer."""
    monkeypatch.setattr(h5_writer, "_BUFFERED_ATOMS", buffered)
    path = tmp_path / "a.h5"
    with H5Writer(path) as writer:
        writer.provenance["text"] = "x" * 10_000
        writer.write_many(frames[:900])
        writer.commit()
        writer.write_many(frames[900:])
        writer.truncate(kept)
        assert len(writer) == kept
    data = H5Dataset(path)
    data.verify() if kept else None
    assert len(data) == kept
    assert data.provenance() == {"text": "x" * 10_000}
    assert all(_same(data[i], frames[i]) for i in range(kept))
    with H5Writer(path, append=True) as writer:
        writer.write_many(frames[kept:])
    data = H5Dataset(path)
    data.verify()
    assert all(_same(found, frame) for found, frame in zip(data, frames, strict=True))


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
