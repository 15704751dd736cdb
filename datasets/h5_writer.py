"""`H5Writer`: frames into our HDF5 layout; the file under its own name is complete at every moment."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mlip.datasets import h5_schema as schema
from mlip.datasets.digest import frame_digest
from mlip.datasets.frames import Frame
from mlip.datasets.h5_journal import Journal, JournaledFile, recover
from mlip.datasets.write import scratch_name
from mlip.errors import InputError

_BUFFERED_ATOMS = 50_000
_BUFFERED_HESSIANS = 4_000_000  # numbers
_REMEMBERED_NAMES = 65_536


class H5Writer:
    """Write or extend a file; use as a context manager.

    A new file is written under a hidden name and takes its place at the first `commit()`. From then on, and
    when extending, frames are added to the file itself, and a commit makes them part of it (`h5_journal`):
    whatever happens, even `kill -9`, `path` is what it was at the last commit. Nothing is ever copied. The
    end of the `with` block commits.

    Args:
        path: File, `.h5`.
        append: Extend the file if it exists; otherwise it is replaced.
        attributes: Any of `level_of_theory`, `source`, `licence`.

    Attributes:
        provenance: Anything that JSON can hold about the origin of the frames; saved by every commit.

    Raises:
        InputError: An attribute is unknown, or the file to extend is not of our layout, differs in an
            attribute, or is being written by another program.
    """

    def __init__(
        self, path: str | Path, *, append: bool = False, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.path = Path(path)
        self.provenance: dict[str, Any] = {}
        self._attributes = dict(attributes or {})
        unknown = sorted(set(self._attributes) - set(schema.TEXT_ATTRIBUTES))
        if unknown:
            raise InputError(
                f"unknown attribute `{unknown[0]}`; known ones: {', '.join(schema.TEXT_ATTRIBUTES)}"
            )
        self._buffer: list[Frame] = []
        self._atoms = self._numbers = 0
        self._names: dict[str, int] = {}
        self._new_names: list[str] = []
        self._names_there = 0
        self._temporary: Path | None = None
        self._journal: Journal | None = None
        self._medium: JournaledFile | None = None
        self._file: Any = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        h5py = schema.library()
        try:
            if append and self.path.exists():
                self._open_existing(h5py)
            else:
                self._temporary = scratch_name(self.path)
                self._medium = JournaledFile(self._temporary, new=True)
                self._file = h5py.File(self._medium, "w")
                schema.create(self._file, self._attributes, _version())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> H5Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    def __len__(self) -> int:
        """Number of frames, those not committed yet included."""
        return int(self._file.attrs["frames"]) + len(self._buffer)

    @property
    def attributes(self) -> dict[str, Any]:
        """`level_of_theory`, `source`, `licence` and the others of the root."""
        return schema.attributes_of(self._file)

    def write(self, frame: Frame) -> None:
        """Add one frame."""
        if not len(frame):
            raise InputError("a frame without atoms cannot be written")
        if not 0 < frame.atomic_numbers.min() <= frame.atomic_numbers.max() < 256:
            raise InputError(f"`atomic_numbers` holds {frame.atomic_numbers.tolist()} but must be 1 to 255")
        self._buffer.append(frame)
        self._atoms += len(frame)
        self._numbers += 0 if frame.hessian is None else frame.hessian.size
        if self._atoms >= _BUFFERED_ATOMS or self._numbers >= _BUFFERED_HESSIANS:
            self._flush()

    def write_many(self, frames: Iterable[Frame]) -> None:
        """Add frames."""
        for frame in frames:
            self.write(frame)

    def truncate(self, frames: int) -> None:
        """Drop all frames after the first ones, and what an interrupted `write` left of others.

        The next commit makes that part of the file, of frames that were committed before, too: a program that
        reads those at that moment may find other numbers in them.
        """
        file = self._file
        there = min(frames, int(file.attrs["frames"]))
        kept = self._buffer[: frames - there]
        rows = {"frames": there}
        for part, end in (("atoms", "end"), ("info", "info_end"), ("hessians", "hessian_end")):
            rows[part] = int(file[f"frames/{end}"][there - 1]) if there else 0
        rows["names/end"] = self._names_there
        rows["names/text"] = int(file["names/end"][self._names_there - 1]) if self._names_there else 0
        rows["provenance"] = file["provenance"].shape[0]
        for name in schema.COLUMNS:
            file[name].resize(rows.get(name, rows.get(name.split("/")[0])), axis=0)
        file.attrs["frames"], file.attrs["atoms"] = there, rows["atoms"]
        self._buffer, self._atoms, self._numbers, self._new_names = [], 0, 0, []
        self._names = _last_names(file)
        self.write_many(kept)

    def commit(self) -> None:
        """Make all frames written so far part of `path`."""
        if self._file is None or self._medium is None:
            raise InputError(f"{self.path}: the writer is closed")
        self._flush()
        provenance = json.dumps(self.provenance, ensure_ascii=False).encode() if self.provenance else b""
        self._file["provenance"].resize(len(provenance), axis=0)
        self._file["provenance"][:] = np.frombuffer(provenance, dtype=np.uint8)
        self._file.flush()
        if self._temporary is None:
            if not self._medium.same_as(self.path):
                raise InputError(f"{self.path}: was replaced by another program; nothing was written")
            self._medium.commit(self._journal)
        else:
            self._medium.commit(None)
            self._journal = Journal(self.path)
            self._journal.clear()
            self._temporary.replace(self.path)
            self._temporary = None

    def close(self) -> None:
        """Let go of the file; frames that were not committed are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._medium is not None:
            self._medium.close()
            self._medium = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()

    def _open_existing(self, h5py: Any) -> None:
        with schema.open_checked(self.path) as (file, _, _):
            there = schema.attributes_of(file)
        schema.require_attributes(self.path, there, self._attributes)
        self._journal = recover(self.path)
        self._medium = JournaledFile(self.path)
        self._file = h5py.File(self._medium, "r+")
        schema.check(self._file, self.path)
        if int(self._file.attrs["version"]) == 1:
            schema.upgrade(self._file)
        text = self._file["provenance"][()].tobytes()
        self.provenance = json.loads(text) if text else {}
        self._names = _last_names(self._file)
        self._names_there = self._file["names/end"].shape[0]

    def _flush(self) -> None:
        """Move the buffer into the file."""
        if not self._buffer:
            return
        file = self._file
        rows = self._rows(
            atoms=int(file.attrs["atoms"]), info=file["info"].shape[0], hessians=file["hessians"].shape[0]
        )
        for name, values in rows.items():
            schema.extend(file[name], values)
        if self._new_names:
            texts = [name.encode() for name in self._new_names]
            start = file["names/text"].shape[0]
            schema.extend(file["names/text"], np.frombuffer(b"".join(texts), dtype=np.uint8))
            schema.extend(file["names/end"], start + np.cumsum([len(t) for t in texts], dtype=np.int64))
            self._names_there = file["names/end"].shape[0]
        file.attrs["frames"] = int(file.attrs["frames"]) + len(self._buffer)
        file.attrs["atoms"] = int(file.attrs["atoms"]) + self._atoms
        self._buffer, self._atoms, self._numbers, self._new_names = [], 0, 0, []

    def _rows(self, *, atoms: int, info: int, hessians: int) -> dict[str, np.ndarray]:
        """The buffered frames as columns; the arguments are the rows already there."""
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
            **{f"frames/{key}": [self._name(getattr(f, key)) for f in frames] for key in schema.KEYS},
            "frames/step": [f.step for f in frames],
            "frames/digest": [frame_digest(f) for f in frames],
            "frames/info_end": info + np.cumsum([len(t) for t in texts]),
            "frames/hessian_end": hessians
            + np.cumsum([0 if f.hessian is None else f.hessian.size for f in frames]),
            "atoms/positions": np.concatenate([f.positions for f in frames]),
            "atoms/forces": np.concatenate(
                [np.full((len(f), 3), np.nan) if f.forces is None else f.forces for f in frames]
            ),
            "atoms/atomic_numbers": np.concatenate([f.atomic_numbers for f in frames]),
            "hessians": np.concatenate(
                [np.zeros(0), *(f.hessian.ravel() for f in frames if f.hessian is not None)]
            ),
            "info": np.frombuffer(b"".join(texts), dtype=np.uint8),
        }
        return {name: np.asarray(values, dtype=schema.COLUMNS[name][0]) for name, values in columns.items()}

    def _name(self, name: str) -> int:
        """Index of a name, which is added if it is not among those used lately."""
        if not name:
            return -1
        index = self._names.pop(name, None)
        if index is None:
            index = self._file["names/end"].shape[0] + len(self._new_names)
            self._new_names.append(name)
            if len(self._names) >= _REMEMBERED_NAMES:
                del self._names[next(iter(self._names))]
        self._names[name] = index  # the last one is the one used last
        return index


def _last_names(file: Any) -> dict[str, int]:
    """Index by name of the names added last."""
    ends = file["names/end"]
    count = ends.shape[0]
    first = max(0, count - _REMEMBERED_NAMES)
    bounds = [int(ends[first - 1]) if first else 0, *ends[first:].tolist()]
    text = file["names/text"][bounds[0] :].tobytes()
    pairs = pairwise(bounds)
    return {text[a - bounds[0] : b - bounds[0]].decode(): first + i for i, (a, b) in enumerate(pairs)}


def _labels(frame: Frame) -> int:
    return (
        schema.ENERGY * (frame.energy is not None)
        + schema.FORCES * (frame.forces is not None)
        + schema.STRESS * (frame.stress is not None)
        + schema.HESSIAN * (frame.hessian is not None)
    )


def _version() -> str:
    import mlip

    return f"polyad {mlip.__version__}"
