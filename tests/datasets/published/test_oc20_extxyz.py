from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from mlip.datasets import read_frames
from mlip.errors import InputError

FRAME = """2
Lattice="5 0 0 0 6 0 0 0 20" Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3 \
energy={energy} free_energy={free} pbc="T T T"
Cu 0.0 0.0 0.1 F 0 0.1 0.2 0.3
O 0.0 0.7 1.9 T 2 -0.1 0.0 0.0
"""


def _pair(folder: Path, *, frames: int = 3, lines: int = 3, ending: str = ".xz") -> Path:
    text = "".join(FRAME.format(energy=-100.5 - i, free=-100.6 - i) for i in range(frames))
    names = "".join(f"random7{i // 2},frame{10 * i},-99.{i}\n" for i in range(lines))
    for name, content in ((f"0.extxyz{ending}", text), (f"0.txt{ending}", names)):
        data = content.encode()
        (folder / name).write_bytes(lzma.compress(data) if ending else data)
    return folder / f"0.extxyz{ending}"


@pytest.mark.parametrize("ending", [".xz", ""])
def test_pairs(tmp_path: Path, ending: str) -> None:
    frames = read_frames(_pair(tmp_path, ending=ending))
    assert frames.report.format == "oc20-extxyz"
    assert [f.energy for f in frames] == [-100.5, -101.5, -102.5]  # total, not free
    assert [f.info["reference_energy"] for f in frames] == [-99.0, -99.1, -99.2]
    assert [f.trajectory for f in frames] == ["random70", "random70", "random71"]
    assert [f.step for f in frames] == [0, 10, 20]
    assert frames[0].forces is not None
    assert frames[0].forces[0].tolist() == [0.1, 0.2, 0.3]  # of the fixed atom


def test_one_of_the_two_is_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.txt\.xz: line 3 is missing"):
        read_frames(_pair(tmp_path, lines=2))
    with pytest.raises(InputError, match=r"0\.extxyz\.xz: holds fewer frames than 0\.txt\.xz has lines"):
        read_frames(_pair(tmp_path, frames=2))


def test_other_text_beside(tmp_path: Path) -> None:
    path = _pair(tmp_path, ending="")
    (tmp_path / "0.txt").write_text("what this is\n")
    assert read_frames(path).report.format == "extxyz"
    (tmp_path / "0.txt").unlink()
    assert read_frames(path).report.format == "extxyz"
    with pytest.raises(InputError, match=r"has no \.txt or \.txt\.xz beside it"):
        read_frames(path, format="oc20-extxyz")


def test_truncated(tmp_path: Path) -> None:
    path = _pair(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"0\.extxyz\.xz: the compressed file is damaged or cut short"):
        read_frames(path)
