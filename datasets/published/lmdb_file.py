"""LMDB files, opened so that nothing is written, locked or read ahead, and never beyond their end.

The map of a file that is cut short ends the process at the first access behind the end, so the size is
compared with what the file says of itself before anything is fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlip.errors import InputError


@contextlib.contextmanager
def open_lmdb(path: Path) -> Iterator[LmdbFile]:
    """Open a file read-only.

    Raises:
        InputError: The package lmdb is missing, or the file is damaged or cut short; errors inside the
            block too.
    """
    try:
        import lmdb
    except ModuleNotFoundError:
        raise InputError('LMDB files need the package lmdb: pip install "polyad[data]"') from None
    size = path.stat().st_size
    if size < 2 * 4096:
        raise InputError(f"{path}: not a complete LMDB file ({size} bytes)")
    try:
        with lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_dbs=0
        ) as environment:
            pages = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            if pages > size:
                raise InputError(f"{path}: not a complete LMDB file ({size} of {pages} bytes)")
            with environment.begin(buffers=False) as transaction:
                yield LmdbFile(path, transaction, environment.stat()["entries"])
    except lmdb.Error as error:
        raise InputError(f"{path}: not a complete LMDB file ({' '.join(str(error).split())})") from error


class LmdbFile:
    """An open file.

    Attributes:
        path: Where it is.
        entries: Number of keys.
    """

    def __init__(self, path: Path, transaction: Any, entries: int) -> None:
        self.path, self.entries = path, entries
        self._transaction = transaction

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        value: bytes | None = self._transaction.get(key)
        return value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values by key as bytes, so that `10` comes before `2`."""
        with self._transaction.cursor() as cursor:
            yield from cursor

    def where(self, key: bytes) -> str:
        """Place of a record, for messages."""
        return f"{self.path}: record {key.decode('ascii', 'backslashreplace')}"
