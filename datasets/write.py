"""`write_frames`: frames to extxyz, our HDF5 or an ASE database, complete or not at all."""

from __future__ import annotations

import contextlib
import gzip
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlip.datasets.formats import detect_format
from mlip.datasets.frames import Frame
from mlip.errors import InputError

WRITABLE = ("extxyz", "hdf5", "ase-db")


def write_frames(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    format: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> int:
    """Write frames; the file appears under its name only once it is complete.

    Args:
        path: `.xyz`/`.extxyz` (labels under `REF_energy`, `REF_forces`, `REF_stress`; `.gz` too), `.h5`,
            or `.db`.
        frames: Frames.
        format: Overrules the ending: "extxyz", "hdf5" or "ase-db".
        attributes: `level_of_theory`, `source`, `licence`: kept in HDF5 only.

    Returns:
        Number of frames written.

    Raises:
        InputError: The ending is not one that can be written.
    """
    path = Path(path)
    kind = format or detect_format(path)
    if kind not in WRITABLE:
        raise InputError(
            f"{path}: cannot write the format {kind}; those that can be written: {', '.join(WRITABLE)}"
        )
    if kind == "hdf5":
        from mlip.datasets.h5_writer import H5Writer

        count = 0
        with H5Writer(path, attributes=attributes) as writer:
            for frame in frames:
                writer.write(frame)
                count += 1
        return count
    with temporary(path) as scratch:
        if kind == "extxyz":
            from mlip.datasets.extxyz import write_extxyz

            packed = path.suffix == ".gz"
            with (
                gzip.open(scratch, "wt", encoding="utf-8")
                if packed
                else scratch.open("w", encoding="utf-8") as out
            ):
                return write_extxyz(out, frames)
        from mlip.datasets.ase_database import write_database

        return write_database(scratch, frames)


def scratch_name(path: Path) -> Path:
    """A hidden name beside `path` that nothing else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which takes its place at the end, or vanishes on an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_name(path)
    try:
        yield scratch
        scratch.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
