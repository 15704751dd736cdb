"""`JournaledFile`: an HDF5 file that is extended in place and yet complete at every moment.

HDF5 overwrites its own indices while it works, so a writer that is killed can leave a file that nothing can
read. Here the library writes through a file object. What it adds after the end of the last commit goes
straight to the file, where nobody looks yet; what it overwrites before that end is kept in memory, in pages.
`commit()` puts those few pages into a journal beside the file (`.NAME.journal`), then into the file, and
empties the journal. Whoever opens the file finds the state of one commit: the old one before the journal is
complete, the new one from then on, for a complete journal is applied by the next writer and read through by
every reader. The journal is also the lock of the one writer.

`flock` on the file itself keeps readers from opening it in the few milliseconds in which pages are applied.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from mlip.errors import InputError

PAGE = 4096
_MAGIC = b"polyad-journal-1"
_HEADER = struct.Struct("<16sQQ")
_ENTRY = struct.Struct("<Q16s")
_PATIENCE = 60.0  # seconds to wait for a program that holds the file locked


class _PagedFile(ABC):
    """What h5py demands of a file object, but for writing."""

    def __init__(self, fd: int, pages: Mapping[int, bytes | bytearray]) -> None:
        self._fd, self._pages, self._position = fd, pages, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def read(self, size: int) -> bytes:
        """As of any file; zeros behind the end."""
        data = _read(self._fd, self._position, size, self._pages)
        self._position += size
        return data

    def readinto(self, buffer: memoryview) -> int:
        """As of any file; zeros behind the end."""
        view = memoryview(buffer).cast("B")
        view[:] = self.read(len(view))
        return len(view)

    @abstractmethod
    def write(self, data: bytes | memoryview) -> int:
        """As of any file."""

    def flush(self) -> None:
        """Nothing is buffered."""
        return


class JournaledFile(_PagedFile):
    """File object for h5py: everything written is invisible until `commit()`.

    Args:
        path: File. It is created empty if `new`; then every write goes to it directly and the first commit
            only makes it durable.
        new: Create, rather than extend.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self._fd = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0), 0o666)
        self._committed = 0 if new else _end_of_hdf5(self._fd)
        if not new:
            os.ftruncate(self._fd, self._committed)  # what a killed writer left behind
        self._own: dict[int, bytearray] = {}
        super().__init__(self._fd, self._own)

    def same_as(self, path: Path) -> bool:
        """Whether `path` still names this file."""
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except FileNotFoundError:
            return False

    def commit(self, journal: Journal | None) -> None:
        """Make everything written so far part of the file; the library must have been flushed."""
        os.fsync(self._fd)
        if self._own:
            if journal is None:
                raise RuntimeError("a file that has been committed once needs a journal")
            journal.write(self._fd, {k: bytes(p) for k, p in self._own.items()})
            try:
                journal.apply(self._fd)
            except InputError:
                journal.clear()
                raise
            except OSError:  # torn now, and whole again when the journal is applied to all that was written
                self._committed = os.fstat(self._fd).st_size
                raise
            self._own.clear()
        self._committed = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close; what was not committed is dropped."""
        if self._fd >= 0:
            if os.fstat(self._fd).st_size > self._committed:
                os.ftruncate(self._fd, self._committed)
            os.close(self._fd)
            self._fd = -1

    def write(self, data: bytes | memoryview) -> int:
        """Keep what lies before the committed end, write what lies after it."""
        view = memoryview(data).cast("B")
        start, done = self._position, 0
        while done < len(view) and start + done < self._committed:
            number, offset = divmod(start + done, PAGE)
            page = self._own.get(number)
            if page is None:
                page = self._own[number] = bytearray(_read(self._fd, number * PAGE, PAGE, {}))
            count = min(PAGE - offset, len(view) - done, self._committed - start - done)
            page[offset : offset + count] = view[done : done + count]
            done += count
        if done < len(view):
            _write(self._fd, start + done, view[done:])
            self._mirror(start + done, view[done:])
        self._position += len(view)
        return len(view)

    def _mirror(self, start: int, view: memoryview) -> None:
        """Keep the page across the committed end whole: it has a part behind the end, too."""
        number = self._committed // PAGE
        first = number * PAGE
        page = self._own.get(number)
        if page is not None and start < first + PAGE:
            count = min(first + PAGE - start, len(view))
            page[start - first : start - first + count] = view[:count]

    def truncate(self, size: int) -> None:
        """Only the part that is not committed yet can be cut."""
        os.ftruncate(self._fd, max(size, self._committed))


class Journal:
    """The journal of a file, held by the only program that may write to it.

    Args:
        path: The file whose journal it is.

    Raises:
        InputError: Another program is writing to the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path
        self._path = journal_name(path)
        self._needed = False
        while True:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._fd)
                raise InputError(f"{path}: another program is writing to it; wait until it is done") from None
            except OSError:
                break  # a file system without locks
            try:
                if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                    break
            except FileNotFoundError:
                pass
            os.close(self._fd)  # its last holder has just removed it

    def write(self, fd: int, pages: dict[int, bytes]) -> None:
        """Write and keep pages, with the fingerprints of those that they will replace."""
        body = b"".join(
            _ENTRY.pack(k, _fingerprint(_read(fd, k * PAGE, PAGE, {}))) + p for k, p in sorted(pages.items())
        )
        os.ftruncate(self._fd, 0)
        _write(
            self._fd, 0, memoryview(_HEADER.pack(_MAGIC, len(pages), len(body)) + body + _fingerprint(body))
        )
        os.fsync(self._fd)

    def apply(self, fd: int) -> None:
        """Put the pages of a complete journal into the file and empty the journal."""
        pages = _pages_of(self._fd, fd)
        if pages:
            with _locked(fd, fcntl.LOCK_EX, self._file):
                self._needed = True
                for start, data in _runs(pages):
                    _write(fd, start, memoryview(data))
                os.fsync(fd)
        self.clear()
        self._needed = False

    def clear(self) -> None:
        """Forget what the journal holds."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Give up writing; the journal vanishes, unless a write to the file failed half-way."""
        if self._fd >= 0 and self._needed:
            os.close(self._fd)
            self._fd = -1
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Snapshot(_PagedFile):
    """Read-only file object for h5py: a file with the pages of an unfinished commit in their places."""

    def __init__(self, fd: int, pages: dict[int, bytes]) -> None:
        super().__init__(fd, pages)

    def write(self, data: bytes | memoryview) -> int:
        """Refused."""
        raise io.UnsupportedOperation("not writable")


def recover(path: Path) -> Journal:
    """Take the journal of an existing file, finishing the commit that a killed writer had begun."""
    journal = Journal(path)
    try:
        fd = os.open(path, os.O_RDWR)
        try:
            journal.apply(fd)
        finally:
            os.close(fd)
    except BaseException:
        journal.close()
        raise
    return journal


@contextlib.contextmanager
def undisturbed(path: Path) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Hold commits off while a file is opened.

    Yields:
        A descriptor of the file and the pages, by number, of a commit that is in the journal only.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        with _locked(fd, fcntl.LOCK_SH, path):
            pages: dict[int, bytes] = {}
            with contextlib.suppress(FileNotFoundError):
                journal = os.open(journal_name(path), os.O_RDONLY)
                try:
                    pages = _pages_of(journal, fd)
                finally:
                    os.close(journal)
            yield fd, pages
    finally:
        os.close(fd)


def journal_name(path: Path) -> Path:
    """Where the journal of a file is."""
    return path.with_name(f".{path.name}.journal")


@contextlib.contextmanager
def _locked(fd: int, kind: int, path: Path) -> Iterator[None]:
    give_up = time.monotonic() + _PATIENCE
    locked = True
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise InputError(f"{path}: another program keeps it locked; close it there") from None
            time.sleep(0.005)
        except OSError:
            locked = False  # a file system without locks
            break
    try:
        yield
    finally:
        if locked:
            fcntl.flock(fd, fcntl.LOCK_UN)


def _pages_of(journal: int, fd: int) -> dict[int, bytes]:
    """Pages of a journal; none if it is incomplete or was written for another file."""
    size = os.fstat(journal).st_size
    if size < _HEADER.size + 16:
        return {}
    data = _read(journal, 0, size, {})
    magic, count, length = _HEADER.unpack_from(data)
    body = data[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(data) != _HEADER.size + length + 16 or _fingerprint(body) != data[-16:]:
        return {}
    pages = {}
    for i in range(count):
        at = i * (_ENTRY.size + PAGE)
        number, before = _ENTRY.unpack_from(body, at)
        page = body[at + _ENTRY.size : at + _ENTRY.size + PAGE]
        if _fingerprint(_read(fd, number * PAGE, PAGE, {})) not in (before, _fingerprint(page)):
            return {}
        pages[number] = page
    return pages


def _runs(pages: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """Pages that follow each other as one piece: its first byte and its content."""
    numbers = sorted(pages)
    first = 0
    for k, number in enumerate(numbers):
        if k + 1 == len(numbers) or numbers[k + 1] != number + 1:
            run = numbers[first : k + 1]
            yield run[0] * PAGE, b"".join(pages[n] for n in run)
            first = k + 1


def _fingerprint(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _read(fd: int, start: int, count: int, pages: Mapping[int, bytes | bytearray]) -> bytes:
    """Bytes of a file, zeros behind its end, with `pages` in place of its own."""
    data = bytearray(count)
    done = 0
    while done < count:
        piece = os.pread(fd, count - done, start + done)
        if not piece:
            break
        data[done : done + len(piece)] = piece
        done += len(piece)
    if pages and count:
        for number in range(start // PAGE, (start + count - 1) // PAGE + 1):
            page = pages.get(number)
            if page is not None:
                low, high = max(start, number * PAGE), min(start + count, (number + 1) * PAGE)
                data[low - start : high - start] = page[low - number * PAGE : high - number * PAGE]
    return bytes(data)


def _write(fd: int, start: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], start + done)


def _end_of_hdf5(fd: int) -> int:
    """Where an HDF5 file ends according to its superblock.

    Source: HDF5 File Format Specification 3.0, II.A, versions 0 to 3 of the superblock.
    """
    size = os.fstat(fd).st_size
    head = _read(fd, 0, 64, {})
    offset = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8])
    if head[:8] != b"\x89HDF\r\n\x1a\n" or offset is None:
        return size
    return min(size, int(struct.unpack_from("<Q", head, offset)[0]))
