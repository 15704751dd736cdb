"""`H5Dataset`: random access to a file of our HDF5 layout through a memory map."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from mlip.datasets import h5_schema as schema
from mlip.datasets.digest import frame_digest
from mlip.datasets.frames import Frame
from mlip.datasets.labels import ReadReport
from mlip.errors import InputError

_MAPPED = tuple(schema.COLUMNS)


class H5Dataset(Sequence[Frame]):
    """Frames of one file, fetched one by one.

    The file is opened at the first access, in each process anew; the object itself is small, can be pickled
    and can cross a fork. Arrays of a frame are views of a private map of the file: changing one never changes
    the file, but do not, for the next access to that frame may show it.

    Args:
        path: File, `.h5`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is damaged or not of our layout (`h5_schema`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with schema.open_checked(self.path) as file:
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

    def _opened(self) -> _Open:
        if self._open is None:
            self._open = _Open(self.path, self._length)
        return self._open

    def _frame(self, i: int) -> Frame:
        file = self._opened()
        row, rows, end = file.row, file.rows, file.end
        start, stop = int(end[i - 1]) if i else 0, int(end[i])
        labels = int(row("frames/labels", i))
        text_start, text_stop = int(file.info_end[i - 1]) if i else 0, int(file.info_end[i])
        info = json.loads(rows("info", text_start, text_stop).tobytes()) if text_stop > text_start else {}
        return Frame(
            positions=rows("atoms/positions", start, stop),
            atomic_numbers=rows("atoms/atomic_numbers", start, stop),
            cell=row("frames/cell", i),
            pbc=row("frames/pbc", i),
            energy=float(row("frames/energy", i)) if labels & schema.ENERGY else None,
            forces=rows("atoms/forces", start, stop) if labels & schema.FORCES else None,
            stress=row("frames/stress", i) if labels & schema.STRESS else None,
            group=file.groups[int(row("frames/group", i))],
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
        for label in ("energy", "forces", "stress"):
            if getattr(frame, label) is not None:
                report.took(label, label)
                report.present[label] += 1
        yield frame


class _Open:
    """A mapped file: where every chunk of every column lies."""

    def __init__(self, path: Path, length: int) -> None:
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        with schema.open_checked(path) as file:
            self._columns = {name: _column(file[name], self._map, path) for name in _MAPPED}
            self.end: np.ndarray = file["frames/end"][()]
            self.info_end: np.ndarray = file["frames/info_end"][()]
            self.groups: list[str] = [n.decode() for n in file["group_names"][()].tolist()]
            self._check(file, path, length)

    def _check(self, file: Any, path: Path, length: int) -> None:
        group = file["frames/group"][()]
        last = (int(file.attrs["atoms"]), int(file["info"].shape[0]))
        for end, total in zip((self.end, self.info_end), last, strict=True):
            if len(end) != length or (
                length and (end[0] < 0 or (np.diff(end) < 0).any() or end[-1] != total)
            ):
                raise InputError(f"{path}: the index of frames is inconsistent; the file is damaged")
        if length and not 0 <= group.min() <= group.max() < len(self.groups):
            raise InputError(f"{path}: `frames/group` points outside `group_names`; the file is damaged")

    def row(self, name: str, i: int) -> np.ndarray:
        """Row i of a column."""
        views, per = self._columns[name]
        return np.asarray(views[i // per][i % per])

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a column: a view if they lie in one chunk, else a copy."""
        views, per = self._columns[name]
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
        views, _ = self._columns[name]
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
