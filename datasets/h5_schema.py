"""The layout of our HDF5 files, and the checks that a file has it.

Version 1. Attributes of the root: `format` = "polyad-frames", `version`, `frames` and `atoms` (numbers of
them), `units` (JSON), `level_of_theory`, `source`, `licence`, `written_by`. With n frames of m atoms in
total:

| dataset | shape | type | |
|---|---|---|---|
| `frames/end` | n | int64 | index of the atom after the last one of each frame |
| `frames/energy` | n | float64 | eV |
| `frames/stress` | n 3 3 | float64 | eV/Å³, tension positive |
| `frames/labels` | n | uint8 | which labels are real: 1 energy + 2 forces + 4 stress |
| `frames/cell` | n 3 3 | float64 | Å, rows are lattice vectors |
| `frames/pbc` | n 3 | uint8 | 0 or 1 |
| `frames/charge`, `frames/spin` | n | int32 | e; multiplicity 2S + 1 |
| `frames/weight` | n | float64 | |
| `frames/group` | n | int64 | index into `group_names` |
| `frames/digest` | n | uint64 | fingerprint of structure and labels (`frame_digest`) |
| `frames/info_end` | n | int64 | index of the byte after the last one of each frame's JSON in `info` |
| `atoms/positions`, `atoms/forces` | m 3 | float64 | Å, eV/Å |
| `atoms/atomic_numbers` | m | uint8 | |
| `info` | bytes | uint8 | the frames' `info` as JSON, one after the other |
| `group_names` | groups | text | molecule, trajectory or material of a frame; every name once |

Where a label is absent its numbers are NaN. Data sets are chunked and not compressed, so that a reader can
map the file into memory and fetch any frame without going through the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    import h5py

FORMAT: Final = "polyad-frames"
VERSION: Final = 1
ENERGY, FORCES, STRESS = 1, 2, 4
TEXT_ATTRIBUTES = ("level_of_theory", "source", "licence")
UNITS = {
    "energy": "eV",
    "positions": "Å",
    "cell": "Å",
    "forces": "eV/Å",
    "stress": "eV/Å^3 (tension positive)",
}

COLUMNS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "frames/end": ("<i8", ()),
    "frames/energy": ("<f8", ()),
    "frames/stress": ("<f8", (3, 3)),
    "frames/labels": ("u1", ()),
    "frames/cell": ("<f8", (3, 3)),
    "frames/pbc": ("u1", (3,)),
    "frames/charge": ("<i4", ()),
    "frames/spin": ("<i4", ()),
    "frames/weight": ("<f8", ()),
    "frames/group": ("<i8", ()),
    "frames/digest": ("<u8", ()),
    "frames/info_end": ("<i8", ()),
    "atoms/positions": ("<f8", (3,)),
    "atoms/forces": ("<f8", (3,)),
    "atoms/atomic_numbers": ("u1", ()),
    "info": ("u1", ()),
}
CHUNK_ROWS: Final = {"frames": 512, "atoms": 8192, "info": 16384}


def library() -> ModuleType:
    """The package h5py.

    Raises:
        InputError: It is not installed; says how to install it.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError('HDF5 files need the package h5py: pip install "polyad[train]"') from None
    return h5py


def create(file: h5py.File, attributes: dict[str, str], version: str) -> None:
    """Lay out an empty file."""
    h5py = library()
    file.attrs.update({"format": FORMAT, "version": VERSION, "frames": 0, "atoms": 0, "written_by": version})
    file.attrs["units"] = json.dumps(UNITS, ensure_ascii=False)
    for name in TEXT_ATTRIBUTES:
        file.attrs[name] = attributes.get(name, "")
    for name, (dtype, shape) in COLUMNS.items():
        rows = CHUNK_ROWS[name.split("/")[0]]
        file.create_dataset(name, (0, *shape), maxshape=(None, *shape), dtype=dtype, chunks=(rows, *shape))
    file.create_dataset("group_names", (0,), maxshape=(None,), dtype=h5py.string_dtype(), chunks=(512,))


def open_checked(path: Path, mode: str = "r") -> h5py.File:
    """Open a file of this layout.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is cut short, not HDF5, not of this layout, or of a later version.
    """
    h5py = library()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = h5py.File(path, mode)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a complete HDF5 file ({reason})") from error
    try:
        _check(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check(file: h5py.File, path: Path) -> None:
    h5py = library()
    if _text(file.attrs.get("format")) != FORMAT:
        keys = ", ".join(f"`{k}`" for k in list(file)[:8]) or "none"
        raise InputError(
            f"{path}: an HDF5 file, but not of the {FORMAT} layout (its top-level keys: {keys}); "
            "write one with `mlip data convert`"
        )
    version = int(file.attrs.get("version", 0))
    if not 1 <= version <= VERSION:
        raise InputError(
            f"{path}: has layout version {version}, but this program knows 1 to {VERSION}; upgrade polyad"
        )
    for name, (dtype, shape) in COLUMNS.items():
        where = file
        for part in name.split("/"):
            link = where.get(part, getlink=True) if isinstance(where, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{path}: has no dataset `{name}` of its own, which the layout demands")
            where = where[part]
        if not isinstance(where, h5py.Dataset) or where.is_virtual or where.external:
            raise InputError(f"{path}: `{name}` must be a dataset stored in this file")
        if where.dtype != np.dtype(dtype) or where.shape[1:] != shape:
            raise InputError(
                f"{path}: `{name}` is {where.dtype} {where.shape} "
                f"but must be {np.dtype(dtype)} rows of {shape}"
            )
        rows = (
            int(file.attrs["atoms" if name.startswith("atoms") else "frames"])
            if name != "info"
            else where.shape[0]
        )
        if where.shape[0] != rows:
            raise InputError(
                f"{path}: `{name}` has {where.shape[0]} rows but must have {rows}; the file is damaged"
            )


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Attributes of the root as plain values."""
    return {k: (v.item() if isinstance(v, np.generic) else _text(v)) for k, v in file.attrs.items()}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
