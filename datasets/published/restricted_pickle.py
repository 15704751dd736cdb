"""Reading pickles without running anything: an allow-list of opcodes, of globals and of what they stand
for.

A pickle is a program. The one here knows plain values (numbers, texts, bytes, lists, tuples, dictionaries),
and calls nothing but the stand-ins that the caller names for each global; any other global or opcode is
refused. The interpreter is the one written in Python: the one in C allocates a memo as large as the pickle
asks for, before anything of it can be checked.
"""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from mlip.errors import InputError

Globals = Mapping[tuple[str, str], Callable[..., Any]]
"""Module and name of a global: what is called in its place."""

LARGEST: Final = 1 << 30
"""Bytes that a compressed record may have when decompressed."""

_BASE: Any = pickle._Unpickler

_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.FRAME, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1),
    *(pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT),
    *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.BINBYTES8, pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST),
    *(pickle.LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM),
    *(pickle.SETITEMS, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
    *(pickle.NEWOBJ, pickle.BINPERSID),
)


class Record:
    """Stand-in of an object: keeps what it was built from.

    Attributes:
        state: What the pickle sets the object up with.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class Unpickler(_BASE):
    """One pickle of a stream.

    Args:
        stream: Bytes.
        globals: What may be named, and what stands for it.
        persistent: What stands for persistent identifiers; they are refused without.
    """

    dispatch: dict[int, Callable[..., None]] = {op[0]: _BASE.dispatch[op[0]] for op in _OPCODES}  # noqa: RUF012

    def __init__(
        self, stream: io.BytesIO, globals: Globals, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._globals, self._persistent = globals, persistent

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The stand-in of a global.

        Raises:
            InputError: There is none.
        """
        try:
            return self._globals[module, name]
        except (KeyError, TypeError):
            raise InputError(
                f"is a pickle that names `{module}.{name}`, which is refused: it might run code"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """The stand-in of an object stored elsewhere."""
        if self._persistent is None:
            raise InputError("is a pickle that refers to objects outside itself, which is refused")
        return self._persistent(pid)

    def _call(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if not any(called is allowed for allowed in self._globals.values()):
            raise InputError("is a pickle that calls something that is no global, which is refused")
        self.stack[-1] = called(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is not Record:
            raise InputError("is a pickle that changes an object of its own making, which is refused")
        self.stack[-1].state = state

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.BUILD[0]] = _build


def unpickle(data: bytes, globals: Globals | None = None, *, where: str) -> Any:
    """The value of a pickle of plain values, and of those `globals` that are named.

    Args:
        data: Pickle of any protocol.
        globals: What may be named, and what stands for it.
        where: File and record, for messages.

    Raises:
        InputError: It is damaged, or holds anything else.
    """
    return read_pickle(io.BytesIO(data), globals or {}, where=where)


def read_pickle(
    stream: io.BytesIO, globals: Globals, *, where: str, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The next pickle of a stream; see `unpickle`."""
    try:
        return Unpickler(stream, globals, persistent).load()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except KeyError as error:  # of the table of opcodes, or of the memo
        raise InputError(f"{where}: is a pickle with something refused or damaged in it ({error})") from error
    except (MemoryError, OverflowError, RecursionError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{where}: is a damaged pickle ({type(error).__name__}: {error})") from error
    except (AttributeError, IndexError, TypeError, ValueError, AssertionError, struct.error) as error:
        raise InputError(f"{where}: is a damaged pickle ({type(error).__name__}: {error})") from error


def decompress(data: bytes, *, where: str, largest: int = LARGEST) -> bytes:
    """The content of gzip or zlib data.

    Raises:
        InputError: It is damaged, or larger than `largest` when decompressed.
    """
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        out = stream.decompress(data, largest)
    except zlib.error as error:
        raise InputError(f"{where}: is not complete gzip or zlib data ({error})") from error
    if stream.unconsumed_tail:
        raise InputError(f"{where}: is larger than {largest} bytes when decompressed, which is refused")
    if not stream.eof:
        raise InputError(f"{where}: is not complete gzip or zlib data (cut short)")
    return out
