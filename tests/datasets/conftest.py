"""Frames and files that the data tests share."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import Frame

WATER = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])


@pytest.fixture
def water() -> Frame:
    """A molecule with every kind of label and remark."""
    forces = np.array([[0.1, -0.2, 0.3], [-0.05, 0.1, 0.0], [-0.05, 0.1, -0.3]])
    return Frame(
        positions=WATER,
        atomic_numbers=np.array([8, 1, 1]),
        energy=-2081.123456789,
        forces=forces,
        group="water",
        weight=2.5,
        charge=1,
        spin=2,
        molecule="water",
        trajectory="water/300K",
        step=7,
        info={"config_type": "300K", "count": 7, "angle": 104.5, "good": True, "text": 'a "b" \\ c=d'},
    )


@pytest.fixture
def crystal() -> Frame:
    """A triclinic periodic cell with a stress."""
    rng = np.random.default_rng(0)
    stress = rng.normal(size=(3, 3)) * 0.01
    return Frame(
        positions=rng.normal(size=(2, 3)),
        atomic_numbers=np.array([14, 14]),
        cell=np.array([[3.8, 0.0, 0.0], [1.9, 3.3, 0.1], [0.2, 1.1, 3.1]]),
        pbc=np.array([True, True, False]),
        energy=-10.8,
        forces=rng.normal(size=(2, 3)),
        stress=stress + stress.T,
    )


@pytest.fixture
def bare() -> Frame:
    """A structure without labels."""
    return Frame(positions=WATER + 0.25, atomic_numbers=np.array([8, 1, 1]))


@pytest.fixture
def damaged_gzip() -> Callable[[bytes], bytes]:
    """Compresses, with an impossible kind of block at the beginning: zlib's own error."""

    def damaged(data: bytes) -> bytes:
        packed = bytearray(gzip.compress(data, mtime=0))
        packed[10] = 0b111
        return bytes(packed)

    return damaged


XYZ = """3
Lattice="10 0 0 0 11 0 0 0 12" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="T T T"
O 0.0 0.0 0.1 0.1 0.2 0.3
H 0.0 0.7 -0.4 -0.1 0.0 0.0
H 0.0 -0.7 -0.4 0.0 -0.2 -0.3
"""


@pytest.fixture
def xyz(tmp_path: Path) -> Path:
    """Two frames under bare names."""
    path = tmp_path / "two.xyz"
    path.write_text(XYZ * 2)
    return path
