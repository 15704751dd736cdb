"""Tensors inside pickles, read by numpy: neither torch nor its loader is involved.

A pickled tensor is `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …)`, its storage
`torch.storage._load_from_bytes(b)`. The latter loads any pickle and so runs any code; here `b` is taken
apart instead. It is torch's format from before 1.6: five pickles (a magic number, 1001 for the protocol,
facts on the machine, a persistent identifier `("storage", torch.XStorage, key, device, numbers, None)`, a
list of keys), the number of elements as int64, and the elements, little-endian.

Source: pytorch `torch/serialization.py` (`_legacy_save`), `torch/storage.py`, `torch/_utils.py`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlip.datasets.published.restricted_pickle import Globals, read_pickle
from mlip.errors import InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_LARGEST_RANK = 8


def _named(dtype: str) -> Callable[[], str]:
    return lambda: dtype


_STORAGES: Globals = {("torch", name): _named(dtype) for name, dtype in _DTYPES.items()}


def load_storage(data: bytes) -> np.ndarray:
    """Stand-in of `torch.storage._load_from_bytes`: the elements, in one dimension.

    Raises:
        InputError: It is damaged or holds anything else.
    """
    if not isinstance(data, bytes):
        raise InputError("holds a tensor whose storage is not bytes")
    stream = io.BytesIO(data)
    where = "the storage of a tensor"
    found: list[Any] = []

    def note(identifier: Any) -> Any:
        found.append(identifier)
        return None

    for expected in (_MAGIC, _PROTOCOL):
        if read_pickle(stream, {}, where=where) != expected:
            raise InputError("holds a tensor whose storage is not in torch's legacy format")
    read_pickle(stream, {}, where=where)
    read_pickle(stream, _STORAGES, where=where, persistent=note)
    keys = read_pickle(stream, {}, where=where)
    if len(found) != 1 or not isinstance(keys, list) or len(keys) != 1:
        raise InputError("holds a tensor with more than one storage")
    return _elements(found[0], stream)


def _elements(identifier: Any, stream: io.BytesIO) -> np.ndarray:
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise InputError(f"holds a tensor whose storage is {str(identifier)[:80]}")
    if identifier[1] not in _STORAGES.values():
        raise InputError("holds a tensor of a type that is not numbers")
    dtype = np.dtype(identifier[1]())
    count = int.from_bytes(stream.read(8), "little", signed=True)
    elements = stream.read()
    if count < 0 or count != identifier[4] or len(elements) != count * dtype.itemsize:
        raise InputError(
            f"holds a tensor of {identifier[4]} elements, but {len(elements)} bytes of {dtype} for them"
        )
    return np.frombuffer(elements, dtype=dtype)


def rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    *rest: Any,
) -> np.ndarray:
    """Stand-in of `torch._utils._rebuild_tensor_v2`: a copy of the elements in their shape.

    Raises:
        InputError: The shape leaves the storage.
    """
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise InputError("holds a tensor without a storage")
    lengths = [offset, *size, *stride]
    if (
        len(size) != len(stride)
        or len(size) > _LARGEST_RANK
        or not all(type(n) is int and n >= 0 for n in lengths)
    ):
        raise InputError(f"holds a tensor of size {size!r} and stride {stride!r}")
    if math.prod(size) == 0:
        return np.zeros(size, dtype=storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= len(storage) or math.prod(size) > len(storage):
        raise InputError(f"holds a tensor of size {tuple(size)} in a storage of {len(storage)} elements")
    strides = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape=size, strides=strides).copy()


def _size(*lengths: Any) -> Any:
    return tuple(lengths[0]) if lengths and isinstance(lengths[0], list | tuple) else lengths


def _ordered(*pairs: Any) -> dict[Any, Any]:
    return dict(*pairs)


TENSORS: Globals = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): load_storage,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): _ordered,
}
"""What a pickle with tensors names."""
