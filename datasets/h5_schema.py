"""The layout of our HDF5 files, and the checks that a file has it.

Version 2. Attributes of the root: `format` = "polyad-frames", `version`, `frames` and `atoms` (numbers of
them), `units` (JSON), `level_of_theory`, `source`, `licence`, `written_by`. With n frames of m atoms in
total:

| dataset | shape | type | |
|---|---|---|---|
| `frames/end` | n | int64 | index of the atom after the last one of each frame |
| `frames/energy` | n | float64 | eV |
| `frames/stress` | n 3 3 | float64 | eV/Å³, tension positive |
| `frames/labels` | n | uint8 | which labels are real: 1 energy + 2 forces + 4 stress + 8 Hessian |
| `frames/cell` | n 3 3 | float64 | Å, rows are lattice vectors |
| `frames/pbc` | n 3 | uint8 | 0 or 1 |
| `frames/charge`, `frames/spin` | n | int32 | e; multiplicity 2S + 1 |
| `frames/weight` | n | float64 | |
| `frames/group`, `…/molecule`, `…/reaction`, `…/trajectory` | n | int64 | index into the names, -1 for none |
| `frames/step` | n | int64 | place in the trajectory, -1 for unknown |
| `frames/digest` | n | uint64 | fingerprint of structure and labels (`frame_digest`) |
| `frames/info_end` | n | int64 | index of the byte after the last one of each frame's JSON in `info` |
| `frames/hessian_end` | n | int64 | index of the number after the last one of each frame's in `hessians` |
| `atoms/positions`, `atoms/forces` | m 3 | float64 | Å, eV/Å |
| `atoms/atomic_numbers` | m | uint8 | |
| `hessians` | Σ 9 N² | float32 | eV/Å², row by row, of the frames that have one |
| `info` | bytes | uint8 | the frames' `info` as JSON, one after the other |
| `names/text`, `names/end` | bytes, names | uint8, int64 | the names in UTF-8, and where each ends |
| `provenance` | bytes | uint8 | JSON: where the frames come from |

Where a label is absent its numbers are NaN. A name usually stands there once, but may be repeated when many
others were written between. Version 1 had no molecules, reactions, trajectories, steps, Hessians and
provenance, and kept the names in one dataset of texts, `group_names`; it is read, and turned into version 2
when it is extended. Data sets are chunked and not compressed, so that a reader can map the file into memory
and fetch any frame without going through the library.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.datasets.h5_journal import Snapshot, undisturbed
from mlip.errors import InputError

if TYPE_CHECKING:
    import h5py

FORMAT: Final = "polyad-frames"
VERSION: Final = 2
ENERGY, FORCES, STRESS, HESSIAN = 1, 2, 4, 8
KEYS: Final = ("group", "molecule", "reaction", "trajectory")
TEXT_ATTRIBUTES = ("level_of_theory", "source", "licence")
UNITS = {
    "energy": "eV",
    "positions": "Å",
    "cell": "Å",
    "forces": "eV/Å",
    "stress": "eV/Å^3 (tension positive)",
    "hessian": "eV/Å^2",
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
    **{f"frames/{key}": ("<i8", ()) for key in KEYS},
    "frames/step": ("<i8", ()),
    "frames/digest": ("<u8", ()),
    "frames/info_end": ("<i8", ()),
    "frames/hessian_end": ("<i8", ()),
    "atoms/positions": ("<f8", (3,)),
    "atoms/forces": ("<f8", (3,)),
    "atoms/atomic_numbers": ("u1", ()),
    "hessians": ("<f4", ()),
    "info": ("u1", ()),
    "names/text": ("u1", ()),
    "names/end": ("<i8", ()),
    "provenance": ("u1", ()),
}
_ADDED: Final = (
    *(f"frames/{key}" for key in KEYS[1:]),
    "frames/step",
    "frames/hessian_end",
    "hessians",
    "names/text",
    "names/end",
    "provenance",
)
"""What version 1 did not have."""

CHUNK_ROWS: Final = {
    "frames": 512,
    "atoms": 8192,
    "hessians": 65536,
    "info": 16384,
    "names": 4096,
    "provenance": 4096,
}


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
    file.attrs.update({"format": FORMAT, "version": VERSION, "frames": 0, "atoms": 0, "written_by": version})
    file.attrs["units"] = json.dumps(UNITS, ensure_ascii=False)
    for name in TEXT_ATTRIBUTES:
        file.attrs[name] = attributes.get(name, "")
    for name in COLUMNS:
        _create_column(file, name)


def _create_column(file: h5py.File, name: str) -> h5py.Dataset:
    dtype, shape = COLUMNS[name]
    rows = CHUNK_ROWS[name.split("/")[0]]
    return file.create_dataset(name, (0, *shape), maxshape=(None, *shape), dtype=dtype, chunks=(rows, *shape))


def columns(version: int) -> list[str]:
    """Datasets that a file of a version has."""
    return [name for name in COLUMNS if version > 1 or name not in _ADDED]


def upgrade(file: h5py.File) -> None:
    """Turn version 1 into version 2, in place."""
    texts = file["group_names"][()].tolist()
    frames = int(file.attrs["frames"])
    for name in _ADDED:
        column = _create_column(file, name)
        if name.startswith("frames/"):
            column.resize(frames, axis=0)
            column[:] = 0 if name == "frames/hessian_end" else -1
    extend(file["names/text"], np.frombuffer(b"".join(texts), dtype=np.uint8))
    extend(file["names/end"], np.cumsum([len(t) for t in texts], dtype=np.int64))
    del file["group_names"]
    file.attrs["version"] = VERSION
    file.attrs["units"] = json.dumps(UNITS, ensure_ascii=False)


def extend(dataset: h5py.Dataset, values: np.ndarray) -> None:
    """Add rows to a column."""
    if not len(values):
        return
    old = dataset.shape[0]
    dataset.resize(old + len(values), axis=0)
    dataset[old:] = values


def require_attributes(path: Path, there: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Refuse to add frames that differ in an attribute of the root.

    Raises:
        InputError: Names the first attribute that does, with both values.
    """
    for name, value in wanted.items():
        if (found := there.get(name)) != value:
            raise InputError(
                f"{path}: has {name} {found!r}, so frames of {name} {value!r} cannot be added to it; "
                "name the same, or write another file"
            )


@contextlib.contextmanager
def open_checked(path: Path) -> Iterator[tuple[h5py.File, int, dict[int, bytes]]]:
    """Open a file of this layout for reading.

    Yields:
        The file; its descriptor; and the pages by which the bytes of the file differ from what the library
        shows (`h5_journal`: a writer was killed in the middle of a commit).

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is cut short, not HDF5, not of this layout, or of a later version.
    """
    h5py = library()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with undisturbed(path) as (fd, pages):
        try:
            file = h5py.File(Snapshot(fd, pages) if pages else path, "r")
        except OSError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: not a complete HDF5 file ({reason})") from error
        with file:
            check(file, path)
            yield file, fd, pages


def check(file: h5py.File, path: Path) -> None:
    """Refuse a file that has not this layout.

    Raises:
        InputError: Says what is missing or wrong.
    """
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
    for name in columns(version):
        dtype, shape = COLUMNS[name]
        found = _dataset(file, name, path)
        if found.dtype != np.dtype(dtype) or found.shape[1:] != shape:
            raise InputError(
                f"{path}: `{name}` is {found.dtype} {found.shape} "
                f"but must be {np.dtype(dtype)} rows of {shape}"
            )
        kind = name.split("/")[0]
        rows = int(file.attrs[kind]) if kind in ("frames", "atoms") else found.shape[0]
        if found.shape[0] != rows:
            raise InputError(
                f"{path}: `{name}` has {found.shape[0]} rows but must have {rows}; the file is damaged"
            )


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset that is stored in this very file."""
    h5py = library()
    where: Any = file
    for part in name.split("/"):
        link = where.get(part, getlink=True) if isinstance(where, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: has no dataset `{name}` of its own, which the layout demands")
        where = where[part]
    if not isinstance(where, h5py.Dataset) or where.is_virtual or where.external:
        raise InputError(f"{path}: `{name}` must be a dataset stored in this file")
    return where


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Attributes of the root as plain values."""
    return {k: (v.item() if isinstance(v, np.generic) else _text(v)) for k, v in file.attrs.items()}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
