"""ASE databases (`.db`, `.json`) and trajectories (`.traj`): read row by row; `.db` is written, too."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.records import RawFrame, record_of_atoms
from mlip.errors import InputError


def iter_database(path: Path) -> Iterator[RawFrame]:
    """Rows of an ASE database by id: key-value pairs and data under their names, results under bare ones.

    Forces are those stored: unlike `row.toatoms().get_forces()`, those of constrained atoms are kept.

    Raises:
        InputError: Not an ASE database.
    """
    from ase.db import connect
    from ase.io.formats import UnknownFileTypeError

    try:
        if path.suffix == ".db":
            _require_systems(path)
        for row in connect(str(path), append=True).select():
            yield _record(row, path)
    except (
        sqlite3.DatabaseError,
        json.JSONDecodeError,
        KeyError,
        AttributeError,
        TypeError,
        UnicodeDecodeError,
        UnknownFileTypeError,
    ) as error:
        raise InputError(
            f"{path}: not an ASE database, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def _require_systems(path: Path) -> None:
    """Refuse an SQLite file without ASE's table, which ASE would create in it."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'systems'"
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        if database.execute(query).fetchone() is None:
            raise InputError(f"{path}: not an ASE database: an SQLite file without the table `systems`")


def _record(row: Any, path: Path) -> RawFrame:
    n = len(row.numbers)
    info: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    named = {**dict(row.data or {}), **dict(row.key_value_pairs)}
    for name in ("energy", "free_energy", "stress", "forces", "charge"):
        value = row.get(name)
        if value is not None:
            named.setdefault(name, value)
    for name, value in named.items():
        if _per_atom(name, value, n):
            arrays[name] = np.asarray(value)
        else:
            info[name] = value
    return RawFrame(
        positions=np.array(row.positions, dtype=np.float64),
        atomic_numbers=np.array(row.numbers, dtype=np.int64),
        cell=np.array(row.cell, dtype=np.float64).reshape(3, 3),
        pbc=np.array(row.pbc, dtype=bool),
        info=info,
        arrays=arrays,
        where=f"row {row.id} of {path}",
    )


def _per_atom(name: str, value: Any, n: int) -> bool:
    """Whether a value has one row per atom; a stress of three atoms has not."""
    if "stress" in name or "virial" in name or isinstance(value, str | dict):
        return False
    return np.ndim(value) >= 1 and len(value) == n and np.asarray(value).dtype.kind in "fiub"


def iter_trajectory(path: Path) -> Iterator[RawFrame]:
    """Images of an ASE trajectory.

    Raises:
        InputError: Not an ASE trajectory.
    """
    from ase.io.trajectory import Trajectory
    from ase.io.ulm import InvalidULMFileError

    try:
        with Trajectory(str(path)) as images:
            for i in range(len(images)):
                yield record_of_atoms(images[i], where=f"frame {i} of {path}")
    except (InvalidULMFileError, json.JSONDecodeError, KeyError, EOFError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not an ASE trajectory, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def write_database(path: Path, frames: Iterable[Frame]) -> int:
    """Write an ASE database (SQLite): energy, forces and stress as results, the rest and Hessians in `data`.

    Returns:
        Number of frames.
    """
    from ase.db import connect

    count = 0
    with connect(str(path), type="db", append=False, use_lock_file=False) as database:
        for frame in frames:
            atoms = frame.to_atoms()
            data = {**atoms.info, **({} if frame.hessian is None else {"hessian": frame.hessian})}
            atoms.info.clear()
            database.write(atoms, data=data)
            count += 1
    return count
