"""Which format a file has, by its ending (and for `.json` by its first characters)."""

from __future__ import annotations

import gzip
from pathlib import Path

from mlip.errors import InputError

_BY_SUFFIX = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".db": "ase-db",
    ".traj": "ase-traj",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
}
_COMPRESSED = (".gz", ".bz2", ".xz")
FORMATS = ("extxyz", "ase-db", "ase-json", "ase-traj", "hdf5", "mlearn", "npz")
ENDINGS = ".xyz, .extxyz, .db, .traj, .json, .h5, .hdf5, .npz, and .xyz or .json with .gz"


def detect_format(path: Path) -> str:
    """Name of the format of a file that exists (for `.json`) or is to be written.

    Raises:
        InputError: The ending is not a known one.
    """
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in _COMPRESSED
    inner = suffixes[-2:-1] if packed else suffixes[-1:]
    if inner == [".json"]:
        return _json_flavour(path, packed=packed)
    name = _BY_SUFFIX.get(inner[0]) if inner else None
    if name is None or (packed and name != "extxyz"):
        raise InputError(f"{path}: cannot tell the format from the ending; known ones: {ENDINGS}")
    return name


def _json_flavour(path: Path, *, packed: bool) -> str:
    """mlearn files are a list, ASE's databases an object."""
    if not path.exists():
        return "ase-json"
    if packed:
        return "mlearn"
    with path.open("rb") as stream:
        head = stream.read(64)
    if head[:2] == b"\x1f\x8b":
        with gzip.open(path) as stream:
            head = stream.read(64)
    return "mlearn" if head.lstrip()[:1] == b"[" else "ase-json"
