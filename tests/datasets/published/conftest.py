"""Files that follow the published layouts."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lmdb
import pytest
from published_files import WriteLmdb


@pytest.fixture
def write_lmdb(tmp_path: Path) -> WriteLmdb:
    """Writes a file of keys and values."""

    def write(items: Mapping[bytes, bytes], name: str = "data.lmdb") -> Path:
        path = tmp_path / name
        path.unlink(missing_ok=True)
        with lmdb.open(str(path), subdir=False, map_size=1 << 24, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                for key, value in items.items():
                    transaction.put(key, value)
            environment.set_mapsize(os.path.getsize(path))
        return path

    return write


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Pickles fields as PyTorch Geometric does, with stand-ins of its classes under their names."""
    data_module = types.ModuleType("torch_geometric.data.data")
    storage_module = types.ModuleType("torch_geometric.data.storage")
    made = {
        name: type(name, (), {"__module__": module.__name__})
        for module, names in (
            (data_module, ("Data", "DataEdgeAttr", "DataTensorAttr")),
            (storage_module, ("GlobalStorage",)),
        )
        for name in names
    }
    for name, cls in made.items():
        module = storage_module if name == "GlobalStorage" else data_module
        setattr(module, name, cls)
    for name in ("torch_geometric", "torch_geometric.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch_geometric.data.data", data_module)
    monkeypatch.setitem(sys.modules, "torch_geometric.data.storage", storage_module)

    def dump(fields: Mapping[str, Any], *, pyg: int = 2, protocol: int = 4) -> bytes:
        data = made["Data"]()
        if pyg == 1:
            data.__dict__.update({"edge_index": None, **fields})
        else:
            store = made["GlobalStorage"]()
            store.__dict__.update({"_mapping": dict(fields), "_parent": None})
            data.__dict__.update(
                {
                    "_edge_attr_cls": made["DataEdgeAttr"],
                    "_tensor_attr_cls": made["DataTensorAttr"],
                    "_store": store,
                }
            )
        return pickle.dumps(data, protocol=protocol)

    return dump
