"""Extended XYZ, read and written frame by frame.

The reader keeps every key under the name that the file gives it: nothing moves into a calculator and no
constraint touches the forces. A plain XYZ file is one without `key=value` pairs in its second line.

Source: the format's description at https://github.com/libAtoms/extxyz.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlip.datasets.extxyz_header import format_value, parse_header
from mlip.datasets.frames import Frame
from mlip.datasets.records import RawFrame
from mlip.errors import InputError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_POSITION_NAMES = ("pos", "positions", "position")
_SPECIES_NAMES = ("species", "symbols", "element")
_NUMBER_NAMES = ("Z", "numbers", "atomic_numbers")
_PLAIN = "species:S:1:pos:R:3"


def iter_extxyz(path: Path) -> Iterator[RawFrame]:
    """Frames of an (extended) XYZ file, `.gz`, `.bz2` and `.xz` too.

    Raises:
        InputError: The file ends within a frame, or a line cannot be understood; names the line.
    """
    try:
        with _open(path) as stream:
            yield from _frames(stream, path)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise InputError(f"{path}: the compressed file is damaged or cut short ({error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file, so not extended XYZ ({error})") from error


def _open(path: Path) -> IO[str]:
    opener: Callable[..., IO[str]] = _OPENERS.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8")


def _frames(stream: IO[str], path: Path) -> Iterator[RawFrame]:
    line, frame = 0, 0
    while True:
        first = stream.readline()
        line += 1
        if not first:
            return
        if not first.strip():
            continue
        where = f"frame {frame} (line {line}) of {path}"
        try:
            n = int(first)
        except ValueError:
            raise InputError(f"{where}: expected a number of atoms, found {first.strip()[:60]!r}") from None
        if n < 1:
            raise InputError(f"{where}: the number of atoms is {n} but must be at least 1")
        header = stream.readline()
        rows = [stream.readline() for _ in range(min(n, 10_000_000))]
        if not header or not rows[-1].strip():
            got = sum(1 for r in rows if r.strip())
            raise InputError(
                f"{where}: announces {n} atoms but only {got} follow; "
                "the file is cut short or the count is wrong"
            )
        yield _parse(header, rows, where=where, line=line + 2)
        line += n + 1
        frame += 1


def _parse(header: str, rows: list[str], *, where: str, line: int) -> RawFrame:
    info = parse_header(header, where=where)
    columns = _columns(str(info.pop("Properties", _PLAIN)), where)
    width = sum(c for _, _, c in columns)
    tokens = [row.split() for row in rows]
    for i, row in enumerate(tokens):
        if len(row) < width:
            raise InputError(
                f"{where}: line {line + i} has {len(row)} columns but `Properties` announces {width}"
            )
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for name, kind, count in columns:
        arrays[name] = _column([row[start : start + count] for row in tokens], name, kind, where)
        start += count
    numbers = _numbers(arrays, where)
    positions = next((arrays.pop(n) for n in _POSITION_NAMES if n in arrays), None)
    if positions is None or positions.shape != (len(rows), 3):
        raise InputError(f"{where}: `Properties` has no `pos:R:3`, so there are no positions")
    lattice = info.pop("Lattice", None)
    cell = np.zeros((3, 3)) if lattice is None else _lattice(lattice, where)
    pbc = _pbc(info.pop("pbc", None), periodic=lattice is not None, where=where)
    return RawFrame(positions, numbers, cell, pbc, info, arrays, where)


def _columns(properties: str, where: str) -> list[tuple[str, str, int]]:
    """Name, kind (S, R, I, L) and width of every column."""
    parts = properties.split(":")
    try:
        columns = [(parts[i], parts[i + 1], int(parts[i + 2])) for i in range(0, len(parts), 3)]
    except (IndexError, ValueError):
        columns = []
    if not columns or any(kind not in "SRIL" or count < 1 for _, kind, count in columns):
        raise InputError(
            f"{where}: `Properties` is {properties!r} but must be name:S|R|I|L:columns, as {_PLAIN}"
        )
    return columns


def _column(cells: list[list[str]], name: str, kind: str, where: str) -> np.ndarray:
    if kind == "S":
        array: np.ndarray = np.array(cells)
    elif kind == "L":
        array = np.array([[c in ("T", "True", "1", "true") for c in row] for row in cells])
    else:
        try:
            array = np.array(cells, dtype=np.float64 if kind == "R" else np.int64)
        except ValueError as error:
            raise InputError(
                f"{where}: column `{name}` holds something that is not a number ({error})"
            ) from error
    return array[:, 0] if array.shape[1] == 1 else array


def _numbers(arrays: dict[str, np.ndarray], where: str) -> np.ndarray:
    from ase.data import atomic_numbers, chemical_symbols

    symbols = next((arrays.pop(n) for n in _SPECIES_NAMES if n in arrays), None)
    given = next((arrays.pop(n) for n in _NUMBER_NAMES if n in arrays and arrays[n].dtype.kind == "i"), None)
    if symbols is None:
        if given is None:
            raise InputError(
                f"{where}: `Properties` has neither `species:S:1` nor `Z:I:1`, so the elements are unknown"
            )
        return np.asarray(given, dtype=np.int64)
    out = np.empty(len(symbols), dtype=np.int64)
    for i, symbol in enumerate(symbols.tolist()):
        z = atomic_numbers.get(symbol, 0)
        if z == 0 and symbol.isdecimal() and int(symbol) < len(chemical_symbols):
            z = int(symbol)
        if z == 0:
            raise InputError(f"{where}: atom {i} is {symbol!r}, which is not the symbol of an element")
        out[i] = z
    return out


def _lattice(value: Any, where: str) -> np.ndarray:
    """Lattice vectors as rows, one after the other in the file."""
    array = np.asarray(value)
    if array.dtype.kind not in "if" or array.size != 9:
        raise InputError(f"{where}: `Lattice` is {value!r} but must be nine numbers")
    return array.astype(np.float64).reshape(3, 3)


def _pbc(value: Any, *, periodic: bool, where: str) -> np.ndarray:
    if value is None:
        return np.full(3, periodic)
    flags = np.asarray(value)
    if flags.dtype.kind not in "bi" or flags.size not in (1, 3):
        raise InputError(f"{where}: `pbc` is {value!r} but must be three of T or F")
    return np.broadcast_to(flags.astype(bool).ravel(), (3,)).copy()


def write_extxyz(stream: IO[str], frames: Iterable[Frame]) -> int:
    """Write frames; labels under `REF_energy`, `REF_forces`, `REF_stress` (eV, eV/Å, eV/Å³), no Hessians.

    Numbers are written with all their digits: what is read back is bit for bit what was written.
    """
    count = 0
    for frame in frames:
        stream.write(_text(frame))
        count += 1
    return count


def _text(frame: Frame) -> str:
    from ase.data import chemical_symbols

    fields = []
    if frame.cell.any():
        fields.append(f'Lattice="{_row(frame.cell.ravel())}"')
    fields.append("Properties=" + _PLAIN + (":REF_forces:R:3" if frame.forces is not None else ""))
    if frame.energy is not None:
        fields.append(f"REF_energy={frame.energy!r}")
    if frame.stress is not None:
        fields.append(f'REF_stress="{_row(frame.stress.T.ravel())}"')
    if frame.charge != 0 or frame.spin != 1:
        fields.append(f"charge={frame.charge} spin={frame.spin}")
    fields.extend(f"{k}={format_value(v)}" for k, v in frame.belongs_to().items())
    if frame.weight != 1.0:
        fields.append(f"config_weight={frame.weight!r}")
    fields.extend(f"{_name(k)}={format_value(v)}" for k, v in frame.info.items())
    fields.append('pbc="' + " ".join("T" if p else "F" for p in frame.pbc) + '"')
    values = frame.positions if frame.forces is None else np.hstack([frame.positions, frame.forces])
    rows = zip(frame.atomic_numbers.tolist(), values.tolist(), strict=True)
    lines = [f"{chemical_symbols[z]:<2} " + " ".join(map(repr, row)) for z, row in rows]
    return "\n".join([str(len(frame)), " ".join(fields), *lines]) + "\n"


def _row(values: np.ndarray) -> str:
    return " ".join(map(repr, values.tolist()))


def _name(key: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in key)
