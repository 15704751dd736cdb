from __future__ import annotations

import collections
import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.datasets.published.restricted_pickle import Record, decompress, unpickle
from mlip.datasets.published.torch_storage import TENSORS, load_storage, rebuild_tensor
from mlip.errors import InputError


class _Call:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Thing:
    """An object with a state."""


def _system(mark: Path) -> bytes:
    return pickle.dumps(_Call(os.system, f"touch {mark}"), protocol=4)


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "system": _system,
    "text protocol": lambda mark: f"cos\nsystem\n(S'touch {mark}'\ntR.".encode(),
    "instance": lambda mark: f"(S'touch {mark}'\nios\nsystem\n.".encode(),
    "object": lambda mark: f"(cos\nsystem\nS'touch {mark}'\no.".encode(),
    "eval": lambda mark: pickle.dumps(_Call(eval, f"open({str(mark)!r}, 'w')"), protocol=4),
    "storage": lambda mark: pickle.dumps(_Call(torch.storage._load_from_bytes, _system(mark)), protocol=4),
    "attribute": lambda mark: pickle.dumps(_Call(getattr, collections.OrderedDict, "fromkeys"), protocol=4),
    "state of a class": lambda mark: b"\x80\x02ccollections\nOrderedDict\n}U\x01aK\x01sb.",
    "call of a value": lambda mark: b"\x80\x02K\x01K\x02\x85R.",
    "extension": lambda mark: b"\x80\x02\x82\x01.",
    "persistent": lambda mark: b"\x80\x02K\x01Q.",
    "persistent text": lambda mark: b"Pabc\n.",
    "array of any size": lambda mark: b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "buffer": lambda mark: b"\x80\x05\x97.",
}

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    if protocol < 3:
        value = _without_bytes(value)  # those are a call of `_codecs.encode` there
    assert unpickle(pickle.dumps(value, protocol=protocol), where="x") == value


def _without_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return {k: _without_bytes(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_bytes, value))
    return value


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("globals", [{}, TENSORS], ids=["plain", "tensors"])
def test_hostile(tmp_path: Path, name: str, globals: dict) -> None:
    """Nothing happens but an error."""
    mark = tmp_path / "mark"
    with pytest.raises(InputError, match=r"^the record: "):
        unpickle(HOSTILE[name](mark), globals, where="the record")
    assert not mark.exists()


def test_the_hostile_ones_are_hostile(tmp_path: Path) -> None:
    """What `pickle` makes of one of them."""
    pickle.loads(HOSTILE["system"](tmp_path / "mark"))
    assert (tmp_path / "mark").exists()


def test_a_storage_does_not_reach_the_loader_of_torch(tmp_path: Path) -> None:
    stream = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001):
        stream.write(pickle.dumps(part))
    stream.write(HOSTILE["system"](tmp_path / "mark"))
    with pytest.raises(InputError, match=r"names `posix.system`"):
        load_storage(stream.getvalue())
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4),
        torch.arange(24.0).reshape(4, 6).T,
        torch.arange(24)[5:17:3],
        torch.tensor(-8396.123, dtype=torch.float64),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.arange(6, dtype=torch.int16).expand(1, 6),
        torch.nn.Parameter(torch.ones(2)).detach(),
    ],
    ids=str,
)
def test_tensors(tensor: torch.Tensor) -> None:
    back = unpickle(pickle.dumps(tensor, protocol=4), TENSORS, where="x")
    assert back.dtype == tensor.numpy().dtype
    np.testing.assert_array_equal(back, tensor.numpy())


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((5,), (1,), 0), ((2,), (4,), 0), ((4,), (1,), 1), ((2,), (-1,), 3), ((2, 2), (1,), 0), ((8,), (0,), 0)],
)
def test_tensors_outside_their_storage(size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
    with pytest.raises(InputError, match=r"^holds a tensor of size"):
        rebuild_tensor(np.zeros(4), offset, size, stride)


def test_storages_that_lie_about_their_size() -> None:
    good = pickle.dumps(torch.zeros(4), protocol=4)
    at = good.index(struct.pack("<q", 4) + bytes(16))
    bad = good[:at] + struct.pack("<q", 400) + good[at + 8 :]
    with pytest.raises(InputError, match="x: holds a tensor of 4 elements"):
        unpickle(bad, TENSORS, where="x")


def test_truncated() -> None:
    data = pickle.dumps({"a": [1.0] * 50}, protocol=4)
    for cut in range(len(data)):
        with pytest.raises(InputError, match=r"^x: is a "):
            unpickle(data[:cut], where="x")


def test_decompression() -> None:
    text = os.urandom(1000) * 50
    assert decompress(gzip.compress(text), where="x") == text
    assert decompress(zlib.compress(text), where="x") == text
    with pytest.raises(InputError, match="x: is larger than 40000 bytes when decompressed, which is refused"):
        decompress(gzip.compress(text), where="x", largest=40_000)
    with pytest.raises(InputError, match=r"x: is not complete gzip or zlib data \(cut short\)"):
        decompress(gzip.compress(text)[:-20], where="x")
    with pytest.raises(InputError, match="x: is not complete gzip or zlib data"):
        decompress(b"hello", where="x")


def test_records_keep_their_state() -> None:
    thing = Thing()
    thing.__dict__["a"] = [1, 2]
    globals = {(Thing.__module__, "Thing"): Record}
    back = unpickle(pickle.dumps(thing, protocol=4), globals, where="x")
    assert type(back) is Record
    assert back.state == {"a": [1, 2]}


def test_a_memo_is_not_as_large_as_the_pickle_asks_for() -> None:
    """The interpreter in C would reserve 16 GB for this."""
    assert unpickle(b"\x80\x02Nr\xff\xff\xff\x7f.", where="x") is None
