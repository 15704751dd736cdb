from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mlip.cli import app
from mlip.datasets import Frame, H5Dataset, data_hash, read_frames, write_frames
from mlip.datasets import convert as module
from mlip.datasets.convert import convert, fingerprint
from mlip.datasets.read import iter_frames
from mlip.errors import InputError


def _molecules(count: int, name: str, *, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    return [
        Frame(
            positions=rng.normal(size=(3, 3)) * 5,
            atomic_numbers=np.array([8, 1, 1]),
            energy=float(i),
            forces=rng.normal(size=(3, 3)),
            molecule=f"{name}{i // 10}",
            trajectory=f"{name}{i // 10}/relax",
            step=i % 10,
        )
        for i in range(count)
    ]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Three files of 40 frames."""
    paths = [tmp_path / "in" / f"part{k}.xyz" for k in (1, 2, 10)]
    for k, path in enumerate(paths):
        write_frames(path, _molecules(40, "abc"[k], seed=k))
    return paths


@pytest.fixture
def whole(inputs: list[Path]) -> str:
    """Fingerprint of what all inputs give."""
    return data_hash([f for path in inputs for f in read_frames(path)])


def _hash(path: Path) -> str:
    return data_hash(H5Dataset(path))


def _after(frames: int) -> Callable[[], bool]:
    """True from the n-th question on."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= frames


def test_summary(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out = tmp_path / "a.h5"
    result = convert(inputs, out)
    assert _hash(out) == whole
    assert (result.frames, result.inputs, result.already) == (120, 3, 0)
    assert result.belonging == {"group": 12, "molecule": 12, "reaction": 0, "trajectory": 12}
    assert result.labelled == {"energy": 120, "forces": 120, "stress": 0, "hessian": 0}
    assert result.sources["energy"] == {"REF_energy": 120}
    assert [f.step for f in H5Dataset(out)][:12] == [*range(10), 0, 1]
    names = [entry["name"] for entry in H5Dataset(out).provenance()["inputs"]]
    assert names == ["part1.xyz", "part2.xyz", "part10.xyz"]


@pytest.mark.parametrize("stops", [[1], [40], [41], [119], [120], [15, 22, 82]])
def test_interrupted_and_repeated(tmp_path: Path, inputs: list[Path], whole: str, stops: list[int]) -> None:
    out = tmp_path / "a.h5"
    for stop in stops:
        result = convert(inputs, out, stop=_after(stop))
        assert result.interrupted
        assert result.frames == len(H5Dataset(out)) == stop
    result = convert(inputs, out)
    assert not result.interrupted
    assert result.frames == 120
    assert _hash(out) == whole
    assert result.labelled["energy"] == 120
    again = convert(inputs, out)
    assert (again.frames, again.already) == (120, 3)
    assert _hash(out) == whole


def test_stopped_while_it_reads_again(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out = tmp_path / "a.h5"
    convert(inputs, out, stop=_after(60))
    for _ in range(2):
        result = convert(inputs, out, stop=_after(5))
        assert result.interrupted
        assert (result.frames, result.labelled["energy"]) == (60, 60)
        assert len(H5Dataset(out)) == 60
    assert convert(inputs, out).frames == 120
    assert _hash(out) == whole


KILLED = """
import os, signal, sys
from mlip.datasets import convert
original, left, convert.COMMIT_FRAMES = convert.iter_frames, int(sys.argv[1]), int(sys.argv[2])
def killed(*arguments, **options):
    global left
    for frame in original(*arguments, **options):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        yield frame
convert.iter_frames = killed
convert.convert(sys.argv[4:], sys.argv[3])
"""


def _kill_after(frames: int, *, commit_frames: int, out: Path, inputs: list[Path]) -> None:
    command = [sys.executable, "-c", KILLED, str(frames), str(commit_frames), str(out), *map(str, inputs)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_commits_do_not_wait_for_a_large_input(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out = tmp_path / "a.h5"
    _kill_after(119, commit_frames=50, out=out, inputs=inputs)
    assert len(H5Dataset(out)) == 100
    assert convert(inputs, out).frames == 120
    assert _hash(out) == whole


def _failing(failure: BaseException, *, at: int) -> Callable[..., Iterator[Frame]]:
    """`iter_frames` that fails in part10.xyz before a frame."""
    original = module.iter_frames

    def frames(path: Path, **options: Any) -> Iterator[Frame]:
        for i, frame in enumerate(original(path, **options)):
            if path.name == "part10.xyz" and i == at:
                raise failure
            yield frame

    return frames


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("the disk is gone")])
@pytest.mark.parametrize("at", [0, 5])
def test_what_was_read_before_a_failure_is_kept(
    tmp_path: Path, inputs: list[Path], whole: str, failure: BaseException, at: int
) -> None:
    out = tmp_path / "a.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "iter_frames", _failing(failure, at=at))
        with pytest.raises(type(failure)):
            convert(inputs, out)
    H5Dataset(out).verify()
    assert len(H5Dataset(out)) == 80 + at
    assert [e["frames"] for e in H5Dataset(out).provenance()["inputs"]] == [40, 40, 5][: 2 + bool(at)]
    if not at:  # nothing was begun, so it can be left out
        assert convert(inputs[:2], out).frames == 80
    assert convert(inputs, out).frames == 120
    assert _hash(out) == whole


def test_a_write_that_is_interrupted_leaves_no_half(
    tmp_path: Path, inputs: list[Path], whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two columns, with rows of the finished inputs and of the present one on their way."""
    out = tmp_path / "a.h5"
    monkeypatch.setattr("mlip.datasets.h5_writer._BUFFERED_ATOMS", 90 * 3)
    original, left = module.schema.extend, [30]

    def extend(dataset: Any, values: np.ndarray) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        original(dataset, values)

    for calls in (1, 12, 20, 21, 22):
        left[0] = calls
        monkeypatch.setattr(module.schema, "extend", extend)
        with pytest.raises(KeyboardInterrupt):
            convert(inputs, out)
        monkeypatch.setattr(module.schema, "extend", original)
        H5Dataset(out).verify()
        assert len(H5Dataset(out)) == 89
        out.unlink()
    left[0] = 22
    monkeypatch.setattr(module.schema, "extend", extend)
    with pytest.raises(KeyboardInterrupt):
        convert(inputs, out)
    monkeypatch.undo()
    assert convert(inputs, out).frames == 120
    assert _hash(out) == whole


def test_killed_and_repeated(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out = tmp_path / "a.h5"
    seen = []
    for left in (57, 65):
        _kill_after(left, commit_frames=10, out=out, inputs=inputs)
        seen.append(len(H5Dataset(out)))
    assert seen == [50, 100]  # the second one reads ten of its 65 to find where the first one stopped
    assert convert(inputs, out).frames == 120
    assert _hash(out) == whole
    H5Dataset(out).verify()


def test_further_inputs_and_the_same_ones(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out = tmp_path / "a.h5"
    convert(inputs[:1], out)
    copy = tmp_path / "copy.xyz"
    copy.write_bytes(inputs[0].read_bytes())
    result = convert([copy, *inputs, inputs[1]], out)
    assert (result.frames, result.already) == (120, 2)
    assert _hash(out) == whole


def test_folder_in_the_order_of_numbers(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    (inputs[0].parent / "notes.txt").write_text("hello")
    (inputs[0].parent / ".hidden.xyz").write_text("hello")
    convert([inputs[0].parent], tmp_path / "a.h5")
    assert _hash(tmp_path / "a.h5") == whole
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no file of a known format"):
        convert([tmp_path / "empty"], tmp_path / "b.h5")


def test_input_that_changed_meanwhile(tmp_path: Path, inputs: list[Path]) -> None:
    out = tmp_path / "a.h5"
    convert(inputs, out, stop=_after(60))
    with pytest.raises(
        InputError,
        match=r"the conversion of part2\.xyz into it was interrupted; give that file, too, or remove .*a\.h5",
    ):
        convert([inputs[2]], out)
    write_frames(inputs[1], _molecules(40, "b", seed=7))
    with pytest.raises(InputError, match=r"part2\.xyz: frame 0 is not the one that .*a\.h5 holds of it"):
        convert(inputs, out)
    write_frames(inputs[1], _molecules(10, "b", seed=1))
    with pytest.raises(InputError, match=r"part2\.xyz: holds fewer frames than .*a\.h5 has of it"):
        convert(inputs, out)
    assert len(H5Dataset(out)) == 60


@pytest.mark.parametrize("commit_frames", [50_000, 7])
def test_damaged_input(
    tmp_path: Path, inputs: list[Path], whole: str, commit_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays, even of what was committed: it can be repaired or left out."""
    monkeypatch.setattr(module, "COMMIT_FRAMES", commit_frames)
    repaired, left_out, text = tmp_path / "a.h5", tmp_path / "b.h5", inputs[1].read_text()
    inputs[1].write_text(text[: len(text) // 2])
    for out in (repaired, left_out):
        with pytest.raises(InputError, match="columns but `Properties` announces 7"):
            convert(inputs, out)
        assert len(H5Dataset(out)) == 40
        H5Dataset(out).verify()
    result = convert([inputs[0], inputs[2]], left_out)
    assert (result.frames, result.already, result.belonging["molecule"]) == (80, 1, 8)
    assert _hash(left_out) == data_hash([f for k in (0, 2) for f in read_frames(inputs[k])])
    inputs[1].write_text(text)
    assert convert(inputs, repaired).frames == 120
    assert _hash(repaired) == whole


def test_damaged_input_after_an_interruption(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    out, text = tmp_path / "a.h5", inputs[1].read_text()
    inputs[1].write_text(text[: len(text) // 2])
    convert(inputs, out, stop=_after(50))
    with pytest.raises(InputError, match="columns but `Properties` announces 7"):
        convert(inputs, out)
    assert convert([inputs[0], inputs[2]], out).frames == 80


def test_damaged_input_alone(tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.h5"
    inputs[0].write_text(inputs[0].read_text()[:-50])
    for _ in range(2):
        with pytest.raises(InputError, match="columns but `Properties` announces 7"):
            convert(inputs, out)
        assert not out.exists()
    monkeypatch.setattr(module, "COMMIT_FRAMES", 7)
    with pytest.raises(InputError, match="columns but `Properties` announces 7"):
        convert(inputs, out)
    assert convert(inputs[1:], out).frames == 80


def test_skipped_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    energy = np.array([-40.0, np.nan, -40.2])
    positions = np.zeros((3, 1, 3))
    positions[2] = np.inf
    with h5py.File(path, "w") as file:
        for name, value in (
            ("atomic_numbers", [6]),
            ("coordinates", positions),
            ("wb97x_dz.energy", energy),
            ("wb97x_dz.forces", np.full((3, 1, 3), np.nan)),
        ):
            file[f"C/{name}"] = value
    out = tmp_path / "out.h5"
    result = convert([path], out)
    assert result.frames == 1
    assert result.skipped == {"neither energy nor forces of wb97x_dz": 1, "`positions` NaN or infinite": 1}
    assert H5Dataset(out).attributes["level_of_theory"] == "wB97X/6-31G*"
    assert H5Dataset(out).attributes["licence"] == "CC0-1.0"
    assert convert([path], out).skipped == result.skipped


def test_levels_of_theory_are_not_mixed(tmp_path: Path, inputs: list[Path]) -> None:
    out = tmp_path / "out.h5"
    for k, level in enumerate(("PBE", "HF")):
        write_frames(tmp_path / f"{k}.h5", _molecules(2, "a", seed=k), attributes={"level_of_theory": level})
    convert([tmp_path / "0.h5"], out)
    assert H5Dataset(out).attributes["level_of_theory"] == "PBE"
    with pytest.raises(InputError, match=r"1\.h5: is of the level of theory 'HF', .*out\.h5 of 'PBE'"):
        convert([tmp_path / "1.h5"], out)
    with pytest.raises(InputError, match="has level_of_theory 'PBE', so frames of level_of_theory 'HF'"):
        convert(inputs, out, attributes={"level_of_theory": "HF"})
    assert convert([tmp_path / "1.h5"], out, attributes={"level_of_theory": "PBE"}).frames == 4


def test_files_that_must_not_be_written(tmp_path: Path, inputs: list[Path]) -> None:
    write_frames(tmp_path / "mine.h5", _molecules(2, "a"))
    with pytest.raises(InputError, match=r"mine\.h5: exists and was not made by a conversion"):
        convert(inputs, tmp_path / "mine.h5")
    with pytest.raises(InputError, match=r"part1\.xyz: is one of the inputs"):
        convert(inputs, inputs[0])
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        convert([tmp_path / "nowhere"], tmp_path / "a.h5")
    with pytest.raises(InputError, match="no inputs were given"):
        convert([], tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("stop", [5, 1000])
def test_inputs_that_are_there_were_read_as_asked_for(tmp_path: Path, inputs: list[Path], stop: int) -> None:
    out = tmp_path / "a.h5"
    convert(inputs, out, stop=_after(stop), attributes={"level_of_theory": "PBE"})
    other = r"a\.h5: holds part1\.xyz with other"
    with pytest.raises(
        InputError, match=other + r" names of labels: none, not \{'energy': 'REF_energy'\}; ask"
    ):
        convert(inputs, out, keys=module.LabelKeys(energy="REF_energy"))
    with pytest.raises(
        InputError, match=other + " format: extxyz, not ase-output; ask for the same, or write"
    ):
        convert(inputs, out, format="ase-output")
    with pytest.raises(InputError, match="has level_of_theory 'PBE', so frames of level_of_theory 'HF'"):
        convert(inputs, out, attributes={"level_of_theory": "HF"})
    assert convert(inputs, out, format="extxyz", attributes={"level_of_theory": "PBE"}).frames == 120


def test_into_text(tmp_path: Path, inputs: list[Path], whole: str) -> None:
    result = convert(inputs, tmp_path / "all.xyz")
    assert result.frames == 120
    assert data_hash(read_frames(tmp_path / "all.xyz")) == whole
    hessian = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]), hessian=np.eye(3))
    write_frames(tmp_path / "h.h5", [hessian])
    assert convert([tmp_path / "h.h5"], tmp_path / "h.xyz").dropped == {"hessian": 1}
    assert convert([tmp_path / "h.h5"], tmp_path / "h.db").dropped == {}
    assert read_frames(tmp_path / "h.db")[0].hessian is not None
    assert convert([tmp_path / "h.h5"], tmp_path / "out.h5").labelled["hessian"] == 1


@pytest.mark.parametrize("name", ["all.xyz", "all.db"])
def test_stopped_on_the_way_into_text(tmp_path: Path, inputs: list[Path], name: str) -> None:
    (tmp_path / name).write_text("what was there")
    result = convert(inputs, tmp_path / name, stop=_after(50))
    assert (result.interrupted, result.frames) == (True, 0)
    assert (tmp_path / name).read_text() == "what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "in"]


def test_fingerprint(tmp_path: Path) -> None:
    data = bytearray(np.random.default_rng(0).bytes(3_000_000))
    (tmp_path / "a").write_bytes(data)
    first = fingerprint(tmp_path / "a")
    for at in (0, len(data) - 1):
        data[at] ^= 1
        (tmp_path / "a").write_bytes(data)
        assert fingerprint(tmp_path / "a") != first
        data[at] ^= 1
    (tmp_path / "b").write_bytes(data)
    assert fingerprint(tmp_path / "b") == first
    (tmp_path / "a").write_bytes(b"")
    assert fingerprint(tmp_path / "a") != first


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", "convert", *map(str, arguments)])


def test_command(tmp_path: Path, inputs: list[Path]) -> None:
    result = _run(*inputs, "--out", tmp_path / "a.h5")
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "a.h5: 120 frames" in text
    assert "groups, molecules, reactions, trajectories 12, 12, 0, 12" in text
    assert "energy 120 frames; from REF_energy: 120" in text
    facts = json.loads(_run(*inputs, "--out", tmp_path / "a.h5", "--json").stdout)
    assert (facts["command"], facts["frames"], facts["already"]) == ("data convert", 120, 3)
    assert facts["interrupted"] is False
    result = _run(inputs[0], "--out", tmp_path / "b.h5", "--format", "nonsense")
    assert result.exit_code == 2
    assert "`format` is 'nonsense' but must be one of extxyz" in result.stderr


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def signalled(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal comes when the 18th frame is read."""
    original = module.iter_frames

    def frames(*arguments: Any, **options: Any) -> Iterator[Frame]:
        for i, frame in enumerate(original(*arguments, **options)):
            if i == 17:
                os.kill(os.getpid(), request.param)
            yield frame

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "iter_frames", frames)
        yield request.param


def test_command_stopped_by_a_signal(
    tmp_path: Path, inputs: list[Path], whole: str, signalled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _run(*inputs, "--out", tmp_path / "a.h5", "--json")
    assert result.exit_code == 128 + signalled
    assert json.loads(result.stdout)["interrupted"] is True
    assert result.stderr.endswith("a.h5: interrupted; the same command goes on from here\n")
    assert len(H5Dataset(tmp_path / "a.h5")) == 18
    monkeypatch.setattr(module, "iter_frames", iter_frames)
    assert _run(*inputs, "--out", tmp_path / "a.h5").exit_code == 0
    assert _hash(tmp_path / "a.h5") == whole


def test_command_into_text_stopped_by_a_signal(tmp_path: Path, inputs: list[Path], signalled: int) -> None:
    result = _run(*inputs, "--out", tmp_path / "a.xyz")
    assert result.exit_code == 128 + signalled
    assert result.stdout == ""
    assert result.stderr.endswith("a.xyz: interrupted; nothing was written\n")
    assert not (tmp_path / "a.xyz").exists()
