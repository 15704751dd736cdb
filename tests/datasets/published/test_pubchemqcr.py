from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_files import Hostile, WriteLmdb

from mlip.datasets import read_frames
from mlip.errors import InputError

HARTREE, HARTREE_PER_BOHR = 27.2113860, 51.4220671  # eV, eV/Å


def _step(i: int, *, charge: bool = True) -> dict[str, Any]:
    """A hydrogen chloride molecule; the values tell the number of the step."""
    nuclear = {"Cl": 17.0, "H": 1.0} if charge else {}
    atoms = [("Cl", 0.0), ("H", 1.3 + 0.01 * i)]
    return {
        "coordinates": [
            {"atom": a, "x": x, "y": 0.0, "z": 0.0, **({"charge": nuclear[a]} if charge else {})}
            for a, x in atoms
        ],
        "energy": -460.0 - i,
        "gradient": [{"atom": a, "dx": s * 0.1 * i, "dy": 0.0, "dz": 0.0} for a, s in (("Cl", -1), ("H", 1))],
    }


def _value(record: Any) -> bytes:
    return gzip.compress(pickle.dumps(record))


def _record(**change: Any) -> dict[str, Any]:
    stages = {
        "pm3": [_step(0)],
        "hf": [_step(0), _step(1)],
        "DFT_1st": [_step(1), _step(2)],
        "DFT_2nd": [_step(3)],
    }
    return {**stages, **change}


def test_trajectories(write_lmdb: WriteLmdb) -> None:
    items = {f"{cid:09}".encode(): _value(_record()) for cid in (10, 2, 7)}
    frames = read_frames(write_lmdb(items, "Data01.lmdb"))
    assert frames.report.format == "pubchemqcr"
    assert [f.molecule for f in frames] == [name for cid in (2, 7, 10) for name in [f"CID {cid}"] * 3]
    assert [f.trajectory for f in frames[:3]] == ["CID 2 DFT_1st", "CID 2 DFT_1st", "CID 2 DFT_2nd"]
    assert [f.step for f in frames[:3]] == [0, 1, 0]
    assert frames[1].energy == pytest.approx(-462 * HARTREE, rel=1e-8)
    np.testing.assert_allclose(
        frames[1].forces, [[0.2 * HARTREE_PER_BOHR, 0, 0], [-0.2 * HARTREE_PER_BOHR, 0, 0]]
    )
    assert frames[1].atomic_numbers.tolist() == [17, 1]
    assert frames[1].positions[1, 0] == 1.32
    assert frames.report.skipped == {"pm3: another method": 3, "hf: another method": 6}
    assert frames.report.sources["forces"] == {"-gradient (hartree/bohr)": 9}


def test_incomplete_records_are_counted(write_lmdb: WriteLmdb) -> None:
    short = {**_step(1), "gradient": _step(1)["gradient"][:1]}
    without = {k: v for k, v in _step(1).items() if k != "energy"}
    steps = [_step(0, charge=False), short, without, {**_step(1), "gradient": None}, _step(4)]
    record = _record(DFT_1st=None, DFT_2nd=steps, pm3=None, hf=[])
    frames = read_frames(write_lmdb({b"000000001": _value(record)}))
    assert [f.step for f in frames] == [0, 4]
    assert frames.report.skipped == {
        "DFT_1st is missing (whole stages)": 1,
        "gradient and coordinates of different lengths": 1,
        "step without energy": 1,
        "step without gradient": 1,
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1, 2], "record 000000003: has none of the stages pm3, hf, DFT_1st, DFT_2nd"),
        ({"DFT_1st": {"coordinates": []}}, "record 000000003: `DFT_1st` is a dict but must be a list"),
        (
            {"DFT_2nd": [{**_step(0), "coordinates": [{"atom": "H"}] * 2}]},
            r"record 000000003: step 0 of `DFT_2nd` is not as documented \(KeyError: 'x'\)",
        ),
    ],
)
def test_other_layouts(write_lmdb: WriteLmdb, record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_frames(write_lmdb({b"000000003": _value(record)}))


def test_no_global_is_allowed(write_lmdb: WriteLmdb, tmp_path: Path) -> None:
    path = write_lmdb({b"000000001": _value(_record()), b"000000002": _value(Hostile(tmp_path / "mark"))})
    with pytest.raises(InputError, match=r"record 000000002: is a pickle that names `posix\.system`"):
        read_frames(path)
    path = write_lmdb({b"000000001": _value(_record(hf=np.float64(1.0)))})
    with pytest.raises(InputError, match="record 000000001: is a pickle that names `numpy"):
        read_frames(path)
    assert not (tmp_path / "mark").exists()
