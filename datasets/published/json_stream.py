"""The members of a JSON object too large for memory, one at a time."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mlip.errors import InputError

_BLOCK = 1 << 20
_LARGEST_MEMBER = 1 << 30
_NUMBER = re.compile(r"[-+.0-9eE]+")
_SPACE = re.compile(r"[ \t\r\n]*")


def iter_members(stream: IO[bytes], path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of every member of the object that a file holds; memory is that of the largest member.

    Raises:
        InputError: It is not one complete JSON object.
    """
    text = _Text(stream, path)
    text.expect("{")
    if text.peek() == "}":
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise text.error(f"expected a key, found {str(key)[:40]}")
        text.expect(":")
        yield key, text.value()
        if text.peek() == "}":
            return
        text.expect(",")


class _Text:
    """A window on the text of a file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at = "", 0
        self._ended = False

    def error(self, reason: str) -> InputError:
        return InputError(f"{self._path}: not complete JSON ({reason})")

    def peek(self) -> str:
        """The next character that is no space."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_BLOCK):
                raise self.error("the file ends too early")

    def expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise self.error(f"expected {character!r}, found {found!r}")
        self._at += 1

    def value(self) -> Any:
        """The next value; the window grows until it holds all of it."""
        self.peek()
        while self._number_may_go_on() and self._more(_BLOCK):
            pass
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                size = len(self._text) - self._at
                if size > _LARGEST_MEMBER or not self._more(max(size, _BLOCK)):
                    raise self.error(str(error)) from error
                continue
            self._at = end
            return value

    def _number_may_go_on(self) -> bool:
        match = _NUMBER.match(self._text, self._at)
        return match is not None and match.end() == len(self._text)

    def _more(self, count: int) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        try:
            data = self._stream.read(count)
            self._ended = not data
            self._text = self._text[self._at :] + self._utf8.decode(data, final=self._ended)
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise self.error(str(error)) from error
        self._at = 0
        return not self._ended
