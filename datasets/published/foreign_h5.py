"""HDF5 files of others: opened without following links out of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlip.datasets.h5_schema import library
from mlip.errors import InputError

if TYPE_CHECKING:
    import h5py

BLOCK = 256
"""Rows that are read at a time."""


@contextlib.contextmanager
def open_foreign(path: Path) -> Iterator[h5py.File]:
    """Open a file; what HDF5 finds damaged later on is an `InputError`, too.

    Raises:
        InputError: It is cut short or not HDF5.
    """
    h5py = library()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a complete HDF5 file ({reason})") from error


def groups(parent: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    """Name and content of the groups in a group that are stored there; links are passed over."""
    h5py = library()
    for name in parent:
        if isinstance(parent.get(name, getlink=True), h5py.HardLink):
            child = parent[name]
            if isinstance(child, h5py.Group):
                yield name, child


def dataset(group: h5py.Group, name: str, *, where: str, optional: bool = False) -> Any:
    """A dataset stored in a group; None if it may be missing and is.

    Raises:
        InputError: It is missing, a link, or kept outside the file.
    """
    h5py = library()
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        if optional and name not in group:
            return None
        have = ", ".join(f"`{k}`" for k in list(group)[:10]) or "nothing"
        raise InputError(f"{where}: has no dataset `{name}`; it holds {have}")
    found = group[name]
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise InputError(f"{where}: `{name}` must be a dataset stored in this file")
    return found


def require(found: Any, shape: tuple[int, ...], *, where: str) -> Any:
    """A dataset of a shape (-1 for any length), and of numbers.

    Raises:
        InputError: It has another.
    """
    fits = len(found.shape) == len(shape) and all(
        b in (-1, a) for a, b in zip(found.shape, shape, strict=True)
    )
    if not fits or found.dtype.kind not in "fiu":
        name = found.name.rsplit("/", 1)[-1]
        raise InputError(f"{where}: `{name}` is {found.dtype} {found.shape} but must be numbers {shape}")
    return found


def rows(found: Any, count: int) -> Iterator[Any]:
    """Rows of a dataset one after the other, read in blocks; None for each where there is no dataset."""
    if found is None:
        for _ in range(count):
            yield None
        return
    for start in range(0, count, BLOCK):
        yield from np.asarray(found[start : start + BLOCK], dtype=np.float64)
