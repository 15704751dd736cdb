"""The second line of an extended XYZ frame: `key=value` pairs to Python values and back.

Source: the format's description at https://github.com/libAtoms/extxyz; the `_JSON` prefix is ASE's.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from mlip.errors import InputError

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(
    rf"\s*(?P<key>{_QUOTED}|[^\s=\"]+)\s*"
    rf"(?:=\s*(?P<value>{_QUOTED}|'[^']*'|\{{[^}}]*\}}|\[(?:[^\[\]]|\[[^\]]*\])*\]|[^\s\"]*))?"
)
_BOOLEANS = {"T": True, "F": False, "True": True, "False": False, "true": True, "false": False}


def parse_header(line: str, *, where: str) -> dict[str, Any]:
    """Values by key: booleans, integers, floats, arrays of them, text. A line without `=` is one `comment`.

    Nine numbers under a key with `stress` or `virial` become 3×3, stored by columns.

    Raises:
        InputError: The line cannot be understood; names the place.
    """
    line = line.strip()
    if "=" not in line:
        return {"comment": line} if line else {}
    values: dict[str, Any] = {}
    at = 0
    while at < len(line):
        match = _PAIR.match(line, at)
        if match is None or match.end() == at:
            raise InputError(f"{where}: cannot understand the line from {line[at : at + 60]!r} on")
        at = match.end()
        if at < len(line) and not line[at].isspace() and not line[at - 1].isspace():
            raise InputError(f"{where}: cannot understand the line from {line[match.start() : at + 40]!r} on")
        key, text = _bare(match["key"]), match["value"]
        value = True if text is None else parse_value(_bare(text))
        if isinstance(value, np.ndarray) and value.size == 9 and ("stress" in key or "virial" in key):
            value = value.reshape(3, 3, order="F")
        values[key] = value
    return values


def parse_value(text: str) -> Any:
    """One value from its text without quotes."""
    if text.startswith("_JSON "):
        try:
            return json.loads(text[6:])
        except json.JSONDecodeError:
            return text
    parts = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
    if not parts:
        return text
    if all(p in _BOOLEANS for p in parts):
        booleans = [_BOOLEANS[p] for p in parts]
        return booleans[0] if len(booleans) == 1 else np.array(booleans)
    for kind in (int, float):
        try:
            numbers = [kind(p) for p in parts]
        except ValueError:
            continue
        return numbers[0] if len(numbers) == 1 else np.array(numbers)
    return text


def format_value(value: object) -> str:
    """Text of a value such that it is read back as itself."""
    if isinstance(value, bool):
        return "T" if value else "F"
    if not isinstance(value, str):
        return repr(value)
    text = value if parse_value(value) is value else f"_JSON {json.dumps(value)}"
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")
    return f'"{text}"'


def _bare(text: str) -> str:
    """The text without its quotes and escapes."""
    if text[:1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text[1:-1] if text[:1] in ("'", "{") else text
