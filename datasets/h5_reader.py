"""`H5Dataset`: random access to a file of our HDF5 layout through a memory map."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int64

from mlip.datasets import h5_schema as schema
from mlip.datasets.digest import frame_digest
from mlip.datasets.frames import Frame
from mlip.datasets.report import LABELS, ReadReport
from mlip.errors import InputError

_REMEMBERED_NAMES = 4096
_ENDS = {
    "frames/end": "atoms/positions",
    "frames/info_end": "info",
    "frames/hessian_end": "hessians",
    "names/end": "names/text",
}
"""Columns of ends, and what they divide."""


class H5Dataset(Sequence[Frame]):
    """Frames of one file, fetched one by one.

    The file is opened at the first access, in each process anew; the object itself is small, can be pickled
    and can cross a fork. Arrays of a frame are views of a private map of the file: changing one never changes
    the file, but do not, for the next access to that frame may show it. A file may be extended while it is
    read: the frames are those of the moment when the object was made.

    Args:
        path: File, `.h5`.

    Attributes:
        attributes: `level_of_theory`, `source`, `licence`, `units` and the others of the root.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is damaged or not of our layout (`h5_schema`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with schema.open_checked(self.path) as (file, _, _):
            self.attributes: dict[str, Any] = schema.attributes_of(file)
        self._length = int(self.attributes["frames"])
        self._open: _Open | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Frame]:
        for i in range(self._length):
            yield self._frame(i)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> list[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | list[Frame]:
        if isinstance(index, slice):
            return [self._frame(i) for i in range(*index.indices(self._length))]
        i = index + self._length if index < 0 else index
        if not 0 <= i < self._length:
            raise IndexError(f"frame {index} of {self.path}, which has {self._length}")
        return self._frame(int(i))

    def verify(self) -> None:
        """Compare every frame with its stored fingerprint.

        Raises:
            InputError: Names the first frame that differs.
        """
        for _ in iter_h5(self.path, ReadReport()):
            pass

    def checksums(self) -> list[int]:
        """The stored fingerprint (`frame_digest`) of every frame."""
        return [int(d) for d in self._opened().whole("frames/digest")[: self._length]]

    def provenance(self) -> dict[str, Any]:
        """Where the frames come from (`H5Writer.provenance`)."""
        file = self._opened()
        text = file.rows("provenance", 0, file.lengths["provenance"]).tobytes() if file.version > 1 else b""
        return json.loads(text) if text else {}

    def index_by(self, key: str) -> Int64[np.ndarray, " frames"]:
        """Which frames belong together, without fetching them: equal numbers for equal names, -1 for none.

        Args:
            key: `group`, `molecule`, `reaction` or `trajectory`.
        """
        if key not in schema.KEYS:
            raise InputError(f"`key` is {key!r} but must be one of {', '.join(schema.KEYS)}")
        file = self._opened()
        if f"frames/{key}" not in file.columns:
            return np.full(self._length, -1, dtype=np.int64)
        index = np.array(file.whole(f"frames/{key}")[: self._length])
        if index.max(initial=-1) >= file.number_of_names:
            raise InputError(f"{self.path}: `frames/{key}` points outside the names; the file is damaged")
        named = index >= 0
        index[named] = file.first_of_name()[index[named]]
        return index

    def _opened(self) -> _Open:
        if self._open is None:
            self._open = _Open(self.path, self._length)
        return self._open

    def _frame(self, i: int) -> Frame:
        file = self._opened()
        row, rows = file.row, file.rows
        start, stop = file.span("frames/end", i)
        labels = int(row("frames/labels", i))
        text_start, text_stop = file.span("frames/info_end", i)
        try:
            info = json.loads(rows("info", text_start, text_stop).tobytes()) if text_stop > text_start else {}
        except ValueError as error:  # JSON or UTF-8
            raise InputError(
                f"{self.path}: `info` of frame {i} is not JSON ({error}); the file is damaged"
            ) from error
        return Frame(
            positions=rows("atoms/positions", start, stop),
            atomic_numbers=rows("atoms/atomic_numbers", start, stop),
            cell=row("frames/cell", i),
            pbc=row("frames/pbc", i),
            energy=float(row("frames/energy", i)) if labels & schema.ENERGY else None,
            forces=rows("atoms/forces", start, stop) if labels & schema.FORCES else None,
            stress=row("frames/stress", i) if labels & schema.STRESS else None,
            hessian=file.hessian(i, 3 * (stop - start)) if labels & schema.HESSIAN else None,
            group=file.name("frames/group", i),
            molecule=file.name("frames/molecule", i),
            reaction=file.name("frames/reaction", i),
            trajectory=file.name("frames/trajectory", i),
            step=int(row("frames/step", i)) if file.version > 1 else -1,
            weight=float(row("frames/weight", i)),
            charge=int(row("frames/charge", i)),
            spin=int(row("frames/spin", i)),
            info=info,
        )


def iter_h5(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of a file in order, each compared with its checksum.

    Raises:
        InputError: The file is damaged or not of our layout.
    """
    data = H5Dataset(path)
    digests = data.checksums() if len(data) else []
    for name in schema.TEXT_ATTRIBUTES:
        if data.attributes.get(name):
            report.notes[f"{name}: {data.attributes[name]}"] += len(data)
    for i, frame in enumerate(data):
        if frame_digest(frame) != digests[i]:
            raise InputError(f"{path}: frame {i} does not match its checksum; the file is damaged")
        for label in LABELS:
            if getattr(frame, label) is not None:
                report.took(label, label)
                report.present[label] += 1
        yield frame


class _Open:
    """A mapped file: where every chunk of every column lies."""

    def __init__(self, path: Path, length: int) -> None:
        with schema.open_checked(path) as (file, fd, pages):
            self._map = mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
            for number, page in pages.items():
                first = number * len(page)
                self._map[first : first + len(page)] = page[: len(self._map) - first]
            self.version = int(file.attrs["version"])
            self.columns = {n: _column(file[n], self._map, path) for n in schema.columns(self.version)}
            self.lengths = {n: int(file[n].shape[0]) for n in self.columns}
            self._texts: list[str] | None = None
            if self.version == 1:
                self._texts = [n.decode() for n in file["group_names"][()].tolist()]
        self.number_of_names = self.lengths["names/end"] if self._texts is None else len(self._texts)
        self._names: dict[int, str] = {}
        self._path = path
        if self.lengths["frames/end"] < length:
            raise InputError(
                f"{path}: has {self.lengths['frames/end']} frames, "
                f"but had {length} when it was opened first; it was replaced"
            )

    def span(self, ends: str, i: int) -> tuple[int, int]:
        """First and last plus one of the rows that belong to frame (or name) i.

        Checked here rather than when the file is opened, which would read the whole index.
        """
        views, per = self.columns[ends]
        start, stop = (int(views[(i - 1) // per][(i - 1) % per]) if i else 0), int(views[i // per][i % per])
        if not 0 <= start <= stop <= self.lengths[_ENDS[ends]]:
            raise InputError(
                f"{self._path}: the index is inconsistent (`{ends}` at {i}); the file is damaged"
            )
        return start, stop

    def hessian(self, i: int, size: int) -> np.ndarray:
        """Hessian of frame i, `size` × `size`."""
        start, stop = self.span("frames/hessian_end", i)
        if stop - start != size * size:
            raise InputError(
                f"{self._path}: frame {i} has a Hessian of {stop - start} numbers instead of {size * size}; "
                "the file is damaged"
            )
        return self.rows("hessians", start, stop).reshape(size, size)

    def name(self, column: str, i: int) -> str:
        """Name that frame i refers to."""
        if column not in self.columns:
            return ""
        views, per = self.columns[column]
        index = int(views[i // per][i % per])
        if index < 0:
            return ""
        if index >= self.number_of_names:
            raise InputError(f"{self._path}: `{column}` points outside the names; the file is damaged")
        if self._texts is not None:
            return self._texts[index]
        name = self._names.get(index)
        if name is None:
            if len(self._names) >= _REMEMBERED_NAMES:
                self._names.clear()
            name = self._names[index] = (
                self.rows("names/text", *self.span("names/end", index)).tobytes().decode()
            )
        return name

    def first_of_name(self) -> Int64[np.ndarray, " names"]:
        """For every name, the index at which it stands for the first time (64-bit fingerprints compared)."""
        count = self.number_of_names
        digests = np.empty(count, dtype=np.uint64)
        for i in range(count):
            text = (
                self.rows("names/text", *self.span("names/end", i)).tobytes()
                if self._texts is None
                else self._texts[i].encode()
            )
            digests[i] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        return np.asarray(first[inverse], dtype=np.int64)

    def row(self, name: str, i: int) -> np.ndarray:
        """Row i of a column."""
        views, per = self.columns[name]
        return np.asarray(views[i // per][i % per])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a column: a view if they lie in one chunk, else a copy."""
        views, per = self.columns[name]
        first, last = start // per, (stop - 1) // per
        if first >= last:
            return views[first][start - first * per : stop - first * per]
        parts = [
            views[first][start - first * per :],
            *views[first + 1 : last],
            views[last][: stop - last * per],
        ]
        return np.concatenate(parts)

    def whole(self, name: str) -> np.ndarray:
        """All rows of a column, padded to whole chunks."""
        views, _ = self.columns[name]
        return np.concatenate(views)


def _column(dataset: Any, memory: mmap.mmap, path: Path) -> tuple[list[np.ndarray], int]:
    """Views of the chunks of a dataset in order, and rows per chunk; a compressed dataset is read whole."""
    if dataset.chunks is None or dataset.id.get_create_plist().get_nfilters() or dataset.shape[0] == 0:
        return [dataset[()]], max(1, dataset.shape[0])
    per = dataset.chunks[0]
    if dataset.chunks[1:] != dataset.shape[1:]:
        return [dataset[()]], max(1, dataset.shape[0])
    where = np.full(-(-dataset.shape[0] // per), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        index = chunk.chunk_offset[0] // per
        if index < len(where):
            where[index] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    size = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    if (where < 0).any() or (where + size > len(memory)).any():
        raise InputError(f"{path}: a part of `{dataset.name}` is missing; the file is damaged")
    return [np.ndarray(dataset.chunks, dataset.dtype, buffer=memory, offset=int(o)) for o in where], per
