"""A small labelled data set, a tiny model, and ways to run training in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from spring_molecules import water

from mlip.datasets import Frame
from mlip.datasets.write import write_frames

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = {
    "name": "polyad",
    "num_channels": 4,
    "lmax": 1,
    "lmax_hidden": 0,
    "correlation": 2,
    "num_knots": 6,
    "radial_width": 8,
    "readout_width": 4,
}


@pytest.fixture
def frames() -> list[Frame]:
    """23 frames of two sizes."""
    return [water(seed) for seed in range(23)]


@pytest.fixture
def crystals() -> list[Frame]:
    """Frames with a cell smaller than the cutoff."""
    return [water(seed, periodic=True) for seed in range(7)]


@pytest.fixture
def data_file(tmp_path: Path, frames: list[Frame]) -> Path:
    """The frames on disk."""
    path = tmp_path / "frames.xyz"
    write_frames(path, frames)
    return path


@pytest.fixture
def settings(tmp_path: Path, data_file: Path) -> dict[str, Any]:
    """A run of three epochs of four steps, in float64."""
    return {
        "model": dict(TINY),
        "cutoff": 3.0,
        "data": {"train": str(data_file), "valid": 4},
        "batch_size": 5,
        "max_epochs": 3,
        "dtype": "float64",
        "device": "cpu",
        "ema": 0.9,
        "plots": False,
        "tensorboard": False,
        "output": str(tmp_path / "run"),
    }


@pytest.fixture
def config_file(tmp_path: Path, settings: dict[str, Any]) -> Path:
    """The same as a file."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


class Process:
    """Runs the command ``mlip`` in processes of their own."""

    program = ("-c", "from mlip.cli import main; main()")

    def __init__(self) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start it, and read its stderr as it comes."""
        return subprocess.Popen(
            [sys.executable, *self.program, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
        """Run it to the end, under ``torchrun`` for several processes."""
        launcher: Sequence[str] = [sys.executable, *self.program]
        if processes > 1:
            torchrun = [
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={processes}",
                "--no-python",
            ]
            launcher = [sys.executable, *torchrun, *launcher]
        return subprocess.run(
            [*launcher, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def process() -> Process:
    """The runner."""
    return Process()


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if isinstance(a, dict):
        if set(a) != set(b):
            return [f"{path}: keys differ"]
        return [d for k in a if k != "epoch_seconds" for d in _differences(a[k], b[k], f"{path}/{k}")]
    if isinstance(a, list | tuple):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in _differences(x, y, f"{path}/{i}")
        ]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [f"{path}: {(a - b).abs().max().item():.3g}"]
    return [] if a == b else [f"{path}: {a} is not {b}"]


@pytest.fixture
def state_differences():
    """Where two checkpoints differ, bit for bit, apart from how long they took."""

    def compare(first: Path, second: Path) -> list[str]:
        a, b = (torch.load(path / "last.ckpt", weights_only=True) for path in (first, second))
        return _differences(a["state"], b["state"], "") + _differences(a["random"], b["random"], "random")

    return compare
