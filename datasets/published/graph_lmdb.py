"""LMDB of pickled PyTorch Geometric `Data`: the container of OC20, OC22, ODAC23 and HORM.

Keys are b"0", b"1", … and, in many files, b"length" with the number of records as a pickled integer. Of PyG
1 the state of a record is its fields, of PyG 2 it is `{"_store": GlobalStorage}` with the fields in
`_mapping`.

Sources: Open-Catalyst-Project/ocp (`core/datasets/lmdb_dataset.py`, `common/utils.py:pyg2_data_transform`);
a file of deepprinciple/HORM.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlip.datasets.published.lmdb_file import LmdbFile
from mlip.datasets.published.restricted_pickle import Globals, Record, unpickle
from mlip.datasets.published.torch_storage import TENSORS
from mlip.errors import InputError


def _scalar(dtype: Any, data: Any) -> Any:
    """Stand-in of numpy's scalars."""
    if not isinstance(dtype, Record) or not dtype.arguments or not isinstance(data, bytes):
        raise InputError("holds a numpy scalar that is not a number")
    if isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",):
        raise InputError("holds a numpy scalar of big-endian bytes")
    kind = np.dtype(_NUMERIC.get(str(dtype.arguments[0]), "V0"))
    if not data or len(data) != kind.itemsize:
        raise InputError("holds a numpy scalar that is not a number")
    return np.frombuffer(data, dtype=kind)[0]


_NUMERIC = {name: f"<{name}" for name in ("f4", "f8", "i4", "i8")}

GRAPHS: Globals = {
    **TENSORS,
    ("torch_geometric.data.data", "Data"): Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): Record,
    ("torch_geometric.data.data", "DataTensorAttr"): Record,
    ("torch_geometric.data.storage", "GlobalStorage"): Record,
    ("numpy", "dtype"): Record,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
"""What a record names."""


def iter_graphs(file: LmdbFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and fields of every record, in the order of their numbers.

    Raises:
        InputError: A record is missing, damaged, or anything but a `Data` of tensors and plain values.
    """
    for i in range(number_of_records(file)):
        key = str(i).encode()
        value = file.get(key)
        if value is None:
            raise InputError(f"{file.where(key)}: is missing; the file is incomplete")
        yield file.where(key), fields(value, where=file.where(key))


def number_of_records(file: LmdbFile) -> int:
    """How many records there are: the entries, but for `length`, with which they must agree.

    Raises:
        InputError: They do not.
    """
    stored = file.get(b"length")
    count = file.entries - (stored is not None)
    if stored is not None:
        length = unpickle(stored, where=file.where(b"length"))
        # one writer counts the key `length` itself
        if length not in (count, count + 1):
            raise InputError(
                f"{file.path}: announces {length} records, but holds {count}; the file is incomplete"
            )
    if count < 1:
        raise InputError(f"{file.path}: holds no records")
    return count


def fields(value: bytes, *, where: str) -> dict[str, Any]:
    """The fields of one record that are set."""
    record = unpickle(value, GRAPHS, where=where)
    state = record.state if type(record) is Record else None
    if isinstance(state, tuple) and state:
        state = state[0]
    if isinstance(state, dict) and type(state.get("_store")) is Record:
        inner = state["_store"].state
        state = inner.get("_mapping") if isinstance(inner, dict) else None
    if not isinstance(state, dict):
        raise InputError(f"{where}: is not a pickled graph (`torch_geometric.data.Data`)")
    return {str(k): v for k, v in state.items() if v is not None}


def array(found: dict[str, Any], name: str, shape: tuple[int, ...], *, where: str) -> np.ndarray:
    """A field as float64 of a shape; -1 for any length.

    Raises:
        InputError: It is missing, or does not fit.
    """
    value = found.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        have = ", ".join(f"`{k}`" for k in list(found)[:12])
        raise InputError(f"{where}: has no array `{name}`; its fields: {have}")
    try:
        return value.astype(np.float64).reshape(shape)
    except ValueError as error:
        raise InputError(f"{where}: `{name}` has shape {value.shape} but must have {shape}") from error


def number(found: dict[str, Any], name: str, *, where: str) -> float | None:
    """A field that is one number; None where it is not set."""
    value = found.get(name)
    if value is None:
        return None
    if np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiub":
        raise InputError(f"{where}: `{name}` is {str(value)[:40]} but must be one number")
    return float(np.asarray(value, dtype=np.float64).reshape(()))
