"""`H5Writer`: frames into our HDF5 layout; the file under its own name is complete at every moment."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mlip.datasets import h5_schema as schema
from mlip.datasets.digest import frame_digest
from mlip.datasets.frames import Frame
from mlip.datasets.write import scratch_name
from mlip.errors import InputError

_BUFFERED_ATOMS = 50_000


class H5Writer:
    """Write or extend a file; use as a context manager.

    All writing goes to a temporary file beside `path` (a copy of `path` when extending), which takes its
    place on `commit()` and at the end of the `with` block. After a crash or an exception `path` is what it
    was at the last commit. Extending copies the file: keep very large sets in several files.

    Args:
        path: File, `.h5`.
        append: Extend the file if it exists; otherwise it is replaced.
        attributes: Any of `level_of_theory`, `source`, `licence`.

    Raises:
        InputError: An attribute is unknown, or the file to extend is not of our layout or differs in an
            attribute.
    """

    def __init__(
        self, path: str | Path, *, append: bool = False, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self._attributes = dict(attributes or {})
        unknown = sorted(set(self._attributes) - set(schema.TEXT_ATTRIBUTES))
        if unknown:
            raise InputError(
                f"unknown attribute `{unknown[0]}`; known ones: {', '.join(schema.TEXT_ATTRIBUTES)}"
            )
        self._temporary = scratch_name(self.path)
        self._extend = append and self.path.exists()
        self._stamp: tuple[int, int] | None = None
        self._file: Any = None
        self._buffer: list[Frame] = []
        self._atoms = 0
        self._groups: dict[str, int] = {}
        self._new_groups: list[str] = []
        self._begin()

    def __enter__(self) -> H5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        self._discard()

    def write(self, frame: Frame) -> None:
        """Add one frame."""
        if not len(frame):
            raise InputError("a frame without atoms cannot be written")
        if not 0 < frame.atomic_numbers.min() <= frame.atomic_numbers.max() < 256:
            raise InputError(f"`atomic_numbers` holds {frame.atomic_numbers.tolist()} but must be 1 to 255")
        self._buffer.append(frame)
        self._atoms += len(frame)
        if self._atoms >= _BUFFERED_ATOMS:
            self._flush()

    def write_many(self, frames: Iterable[Frame]) -> None:
        """Add frames."""
        for frame in frames:
            self.write(frame)

    def commit(self) -> None:
        """Put all frames written so far under `path`."""
        if self._file is None and not self._buffer:
            return
        self._flush()
        self._file.close()
        self._file = None
        with self._temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        if self._stamp is not None and _stamp(self.path) != self._stamp:
            raise InputError(
                f"{self.path}: was changed by another program while being extended; nothing was written"
            )
        self._temporary.replace(self.path)
        self._extend = True

    def _begin(self) -> None:
        h5py = schema.library()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._extend:
            self._stamp = _stamp(self.path)
            shutil.copyfile(self.path, self._temporary)
            self._file = schema.open_checked(self._temporary, "r+")
            self._check_attributes()
            names = [n.decode() for n in self._file["group_names"][()].tolist()]
            self._groups = {n: i for i, n in enumerate(names)}
        else:
            self._file = h5py.File(self._temporary, "w")
            schema.create(self._file, self._attributes, _version())

    def _check_attributes(self) -> None:
        for name, value in self._attributes.items():
            there = schema.attributes_of(self._file)[name]
            if there != value:
                self._discard()
                raise InputError(
                    f"{self.path}: has {name} {there!r}, so frames of {name} {value!r} cannot be added to it"
                )

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def _flush(self) -> None:
        """Move the buffer into the temporary file."""
        if not self._buffer:
            return
        if self._file is None:
            self._begin()
        file = self._file
        first = (int(file.attrs["frames"]), int(file.attrs["atoms"]), file["info"].shape[0])
        rows = self._rows(atoms=first[1], info=first[2])
        for name, values in rows.items():
            _extend(file[name], values)
        if self._new_groups:
            _extend(file["group_names"], np.array(self._new_groups, dtype=object))
        file.attrs["frames"] = first[0] + len(self._buffer)
        file.attrs["atoms"] = first[1] + self._atoms
        self._buffer, self._atoms, self._new_groups = [], 0, []

    def _rows(self, *, atoms: int, info: int) -> dict[str, np.ndarray]:
        """The buffered frames as columns; `atoms` and `info` are the rows already there."""
        frames = self._buffer
        texts = [json.dumps(dict(f.info)).encode() if f.info else b"" for f in frames]
        nan = np.full((3, 3), np.nan)
        columns: dict[str, Any] = {
            "frames/end": atoms + np.cumsum([len(f) for f in frames]),
            "frames/energy": [np.nan if f.energy is None else f.energy for f in frames],
            "frames/stress": [nan if f.stress is None else f.stress for f in frames],
            "frames/labels": [_labels(f) for f in frames],
            "frames/cell": [f.cell for f in frames],
            "frames/pbc": [f.pbc for f in frames],
            "frames/charge": [f.charge for f in frames],
            "frames/spin": [f.spin for f in frames],
            "frames/weight": [f.weight for f in frames],
            "frames/group": [self._group(f.group) for f in frames],
            "frames/digest": [frame_digest(f) for f in frames],
            "frames/info_end": info + np.cumsum([len(t) for t in texts]),
            "atoms/positions": np.concatenate([f.positions for f in frames]),
            "atoms/forces": np.concatenate(
                [np.full((len(f), 3), np.nan) if f.forces is None else f.forces for f in frames]
            ),
            "atoms/atomic_numbers": np.concatenate([f.atomic_numbers for f in frames]),
            "info": np.frombuffer(b"".join(texts), dtype=np.uint8),
        }
        return {name: np.asarray(values, dtype=schema.COLUMNS[name][0]) for name, values in columns.items()}

    def _group(self, name: str) -> int:
        if name not in self._groups:
            self._groups[name] = len(self._groups)
            self._new_groups.append(name)
        return self._groups[name]


def _labels(frame: Frame) -> int:
    return (
        schema.ENERGY * (frame.energy is not None)
        + schema.FORCES * (frame.forces is not None)
        + schema.STRESS * (frame.stress is not None)
    )


def _extend(dataset: Any, values: np.ndarray) -> None:
    if not len(values):
        return
    old = dataset.shape[0]
    dataset.resize(old + len(values), axis=0)
    dataset[old:] = values


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _version() -> str:
    import mlip

    return f"polyad {mlip.__version__}"
