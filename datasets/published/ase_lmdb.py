"""ASE-LMDB, `*.aselmdb`: OMol25, OMat24, sAlex, OMC25, OC25, ODAC25.

One LMDB file. Keys b"1" to b"nextid"-1 but for those in `deleted_ids`; every value is zlib-compressed JSON
of an ASE database row: `numbers`, `positions`, `cell`, `pbc`, `energy`, `forces`, `stress` (eV, eV/Å,
eV/Å³; Voigt xx yy zz yz xz xy), `constraints`, `key_value_pairs`, `data`. There are two dialects: nested
lists with null (fairchem 1, OMat24), and arrays as `{"__ndarray__": [shape, dtype, numbers]}` with bare NaN
(ase-db-backends, OMol25). Forces are those stored, also of atoms under a constraint.

Of OMol25, `data` holds `charge`, `spin` (multiplicity), `source`, `data_id` and more; of OMat24 `sid`,
`calc_id`, `parent_id` (frames made from one structure: their group), `energy_corrected_mp2020`; the energy
is the uncorrected one.

Sources: Open-Catalyst-Project/ocp `core/datasets/lmdb_database.py`; ase-db-backends 0.11 `aselmdb.py`;
DATASET.md of OMol25; documentation of OMat24. All are CC-BY-4.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame, Scalar
from mlip.datasets.published.lmdb_file import LmdbFile, open_lmdb
from mlip.datasets.published.restricted_pickle import decompress
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

_DTYPES = frozenset(("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"))
_LARGEST = 1 << 28
_KEPT = ("source", "data_id", "calc_id", "task_type", "sid", "prototype_label", "energy_corrected_mp2020")
_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def iter_ase_lmdb(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one file.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_lmdb(path) as file:
        for key in _keys(file, report):
            value = file.get(key)
            if value is None:
                raise InputError(f"{file.where(key)}: is missing; the file is incomplete")
            row = _json(value, where=file.where(key))
            try:
                yield _frame(row, report)
            except (InputError, KeyError, TypeError, ValueError) as error:
                what = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(f"{file.where(key)}: {what}") from error


def _keys(file: LmdbFile, report: ReadReport) -> Iterator[bytes]:
    """Keys of the rows, in order; rows that were deleted are counted."""
    following = file.get(b"nextid")
    if following is None:
        raise InputError(f"{file.path}: has no key `nextid`, so it is not an ASE-LMDB file")
    last = _json(following, where=file.where(b"nextid"))
    stored = file.get(b"deleted_ids")
    deleted = set(_json(stored, where=file.where(b"deleted_ids"))) if stored is not None else set()
    if not isinstance(last, int):
        raise InputError(f"{file.where(b'nextid')}: is {str(last)[:40]} but must be a whole number")
    for i in range(1, last):
        if i in deleted:
            report.skipped["row was deleted"] += 1
        else:
            yield str(i).encode()


def _json(value: bytes, *, where: str) -> Any:
    """A record; bare NaN is allowed, arrays of the second dialect are turned into numpy's."""
    data = decompress(value, where=where, largest=_LARGEST)
    try:
        return json.loads(data, object_hook=_array_or_dict)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: is not complete JSON ({error})") from error


def _array_or_dict(value: dict[str, Any]) -> Any:
    if "__ndarray__" not in value:
        return value
    shape, dtype, numbers = value["__ndarray__"]
    if dtype not in _DTYPES:
        raise InputError(f"an array of {str(dtype)[:40]}, which is not numbers")
    return np.array(numbers, dtype=dtype).reshape(shape)


def _frame(row: Any, report: ReadReport) -> Frame:
    if not isinstance(row, dict):
        raise InputError("is not a row of an ASE database")
    numbers = np.asarray(row["numbers"], dtype=np.int64)
    named = {**(row.get("data") or {}), **(row.get("key_value_pairs") or {})}
    report.present.update(named.keys())
    energy, forces, stress = (
        _number(row.get("energy")),
        _numbers(row.get("forces")),
        _stress(row.get("stress")),
    )
    for label, value, unit in (
        ("energy", energy, "eV"),
        ("forces", forces, "eV/Å"),
        ("stress", stress, "eV/Å³"),
    ):
        if value is not None:
            report.took(label, f"{label} ({unit})")
    if row.get("constraints"):
        report.notes["constraints are not kept; forces are those stored"] += 1
    for name in ("charge", "spin"):
        if named.get(name) is not None:
            report.took(name, f"data.{name}")
    info: dict[str, Scalar] = {
        k: named[k] for k in _KEPT if isinstance(named.get(k), str | int | float) and named[k] == named[k]
    }
    return Frame(
        positions=np.asarray(row["positions"], dtype=np.float64),
        atomic_numbers=numbers,
        cell=_cell(row.get("cell")),
        pbc=np.asarray(row.get("pbc", False), dtype=bool),
        energy=energy,
        forces=forces,
        stress=stress,
        molecule=str(named.get("parent_id") or ""),
        charge=_whole(named.get("charge"), 0),
        spin=_whole(named.get("spin"), 1),
        info=info,
    )


def _cell(value: Any) -> np.ndarray:
    if isinstance(value, dict):  # ASE writes a Cell as an object with the array inside
        value = value.get("array")
    return np.zeros((3, 3)) if value is None else np.asarray(value, dtype=np.float64).reshape(3, 3)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _numbers(value: Any) -> np.ndarray | None:
    """An array; None where nothing or only NaN (null) is stored."""
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    return None if array.size == 0 or np.isnan(array).all() else array


def _stress(value: Any) -> np.ndarray | None:
    array = _numbers(value)
    if array is None:
        return None
    if array.size == 6:
        return array.ravel()[_VOIGT]
    if array.size == 9:
        return array.reshape(3, 3)
    raise InputError(f"`stress` has {array.size} numbers but must have 6 or 9")


def _whole(value: Any, default: int) -> int:
    """A whole number, also when it is stored as 1.0 or as an array of one."""
    if value is None:
        return default
    found = float(np.asarray(value, dtype=np.float64).reshape(()))
    if found != round(found):
        raise InputError(f"`charge` or `spin` is {found} but must be a whole number")
    return round(found)
