from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from published_files import WriteLmdb

from mlip.datasets import read_frames
from mlip.datasets.published import ase_lmdb
from mlip.errors import InputError


def _row(i: int) -> dict[str, Any]:
    """Arrays as numpy's; the dialects write them differently."""
    rng = np.random.default_rng(i)
    return {
        "numbers": np.array([8, 1, 1]),
        "positions": rng.normal(size=(3, 3)),
        "cell": np.zeros((3, 3)),
        "pbc": np.zeros(3, dtype=bool),
        "energy": -2000.123456789 - i,
        "forces": rng.normal(size=(3, 3)),
        "unique_id": "x",
        "ctime": 25.0,
        "data": {
            "charge": i % 2,
            "spin": 1 + i % 2,
            "source": "water",
            "nl_energy": float("nan"),
            "warnings": [],
        },
    }


def _fairchem(row: dict[str, Any]) -> bytes:
    """Nested lists, null for NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and value != value else value

    return zlib.compress(json.dumps(plain(row), allow_nan=False).encode())


def _adb(row: dict[str, Any]) -> bytes:
    """Arrays as objects, bare NaN."""

    def tagged(value: Any) -> Any:
        return {"__ndarray__": [list(value.shape), str(value.dtype), value.ravel().tolist()]}

    return zlib.compress(json.dumps(row, default=tagged).encode())


DIALECTS = {"fairchem": _fairchem, "adb": _adb}


def _items(rows: list[dict[str, Any]], dialect: str) -> dict[bytes, bytes]:
    items = {str(i + 1).encode(): DIALECTS[dialect](r) for i, r in enumerate(rows)}
    return {**items, b"nextid": zlib.compress(str(len(rows) + 1).encode())}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_both_dialects(write_lmdb: WriteLmdb, dialect: str) -> None:
    rows = [_row(i) for i in range(12)]
    rows[4]["forces"] = None
    rows[5]["energy"] = float("nan")
    rows[6]["constraints"] = [{"name": "FixAtoms", "kwargs": {"indices": [0]}}]
    items = _items(rows, dialect)
    items[b"deleted_ids"] = zlib.compress(b"[3]")
    del items[b"3"]
    frames = read_frames(write_lmdb(items, "data0000.aselmdb"))
    assert frames.report.format == "ase-lmdb"
    assert len(frames) == 11
    assert frames.report.skipped == {"row was deleted": 1}
    for frame, row in zip(frames, [r for i, r in enumerate(rows) if i != 2], strict=True):
        np.testing.assert_array_equal(frame.positions, row["positions"])
        assert frame.charge == row["data"]["charge"]
        assert frame.spin == row["data"]["spin"]
        assert frame.info == {"source": "water"}
    assert frames[0].energy == -2000.123456789
    assert frames[3].forces is None
    assert frames[4].energy is None
    assert frames[5].forces is not None
    np.testing.assert_array_equal(frames[5].forces, rows[6]["forces"])  # of the fixed atom, too


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("shape", [(6,), (3, 3), (9,)])
def test_stress_is_the_derivative_of_the_energy(
    write_lmdb: WriteLmdb, dialect: str, shape: tuple[int]
) -> None:
    """An order or a sign taken wrongly would not fit finite strains."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1.02, 0.01, 0], [0, 0.99, 0.03], [0, 0, 1.04]]), True)
    atoms.calc = EMT()
    stress = atoms.get_stress() if shape == (6,) else atoms.get_stress(voigt=False).reshape(shape)
    row = {**_row(0), "numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
    row |= {"pbc": atoms.pbc, "energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    row |= {"stress": stress, "data": {"parent_id": "agm1", "sid": "s1", "calc_id": 3}}
    (frame,) = read_frames(write_lmdb(_items([row], dialect), "a.aselmdb"))
    assert frame.stress is not None
    for i, j in ((0, 0), (0, 1), (1, 2), (2, 0)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * 5e-4
            strain[j, i] += sign * 5e-4
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            strained.calc = EMT()
            energies.append(strained.get_potential_energy())
        slope = (energies[0] - energies[1]) / 2e-3 / atoms.get_volume()
        assert frame.stress[i, j] == pytest.approx(slope, abs=2e-5)
    assert (frame.molecule, frame.group, frame.info["calc_id"]) == ("agm1", "agm1", 3)


def _object_array(items: dict[bytes, bytes]) -> None:
    items[b"2"] = zlib.compress(b'{"numbers": {"__ndarray__": [[1], "object", [1]]}}')


def _no_array(items: dict[bytes, bytes]) -> None:
    items[b"2"] = zlib.compress(b'{"numbers": {"__ndarray__": 5}}')


def _too_large(items: dict[bytes, bytes]) -> None:
    items[b"2"] = zlib.compress(b'{"numbers": {"__ndarray__": [[1], "int8", [300]]}}')


def _without_numbers(items: dict[bytes, bytes]) -> None:
    items[b"2"] = zlib.compress(b'{"positions": [[0, 0, 0]]}')


def _cut(items: dict[bytes, bytes]) -> None:
    items[b"2"] = items[b"2"][:-20]


def _gone(items: dict[bytes, bytes]) -> None:
    del items[b"2"]


def _bomb(items: dict[bytes, bytes]) -> None:
    items[b"2"] = zlib.compress(b" " * 5000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_object_array, "record 2: is not complete JSON .*an array of object, which is not numbers"),
        (_no_array, "record 2: is not complete JSON"),
        (_too_large, "record 2: is not complete JSON"),
        (_without_numbers, "record 2: has no 'numbers'"),
        (_cut, "record 2: is not complete gzip or zlib data"),
        (_gone, "record 2: is missing; the file is incomplete"),
        (_bomb, "record 2: is larger than 4000 bytes when decompressed"),
    ],
)
def test_damaged(write_lmdb: WriteLmdb, damage: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ase_lmdb, "_LARGEST", 4000)
    items = _items([_row(i) for i in range(3)], "fairchem")
    damage(items)
    with pytest.raises(InputError, match=message):
        read_frames(write_lmdb(items))


def test_not_an_ase_lmdb(write_lmdb: WriteLmdb) -> None:
    with pytest.raises(InputError, match="has no key `nextid`"):
        read_frames(write_lmdb({b"a": b"b"}, "a.aselmdb"))
    with pytest.raises(InputError, match=r"an LMDB file of an unknown kind \(first key b'a'\)"):
        read_frames(write_lmdb({b"a": b"b"}, "a.lmdb"))
