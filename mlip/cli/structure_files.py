"""Structures from and to files of any format that ASE knows, with errors that name the file."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

_KEPT_FORMATS: Final = ("cif", "vasp")
"""Formats of a single structure that users expect back; everything else becomes extended XYZ, which also
holds forces."""

_STALE: Final = ("energy", "forces", "force", "stress", "virial", "virials")


def read_structures(path: Path) -> list[Atoms]:
    """All frames of a file, without any results that it held.

    Raises:
        InputError: The file is empty, holds no structure, or is in no format that ASE reads.
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder.
    """
    import ase.io

    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty, but must hold at least one structure")
    with path.open("rb"):  # a folder or a file that may not be read is reported by the system's own error
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = ase.io.read(path, index=":", do_not_split_by_at_sign=True)
    except Exception as error:  # each of ASE's hundred readers fails in its own way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: cannot be read as a structure ({reason[:200]}): "
            "give a file that ASE reads (.xyz, .cif, POSCAR, …)"
        ) from None
    frames = [frames] if not isinstance(frames, list) else frames
    if not frames or any(len(atoms) == 0 for atoms in frames):
        raise InputError(f"{path}: the file holds no atoms, but at least one is needed")
    for atoms in frames:
        forget_results(atoms)
    return frames


def structures_in(folder: Path, *, besides: Path | None = None) -> tuple[list[Path], list[Path]]:
    """Files of a folder whose names are those of structures, and what else it holds, in order.

    Args:
        folder: Its own folders are not looked into; hidden files do not count.
        besides: A file that is neither.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (besides is not None and path.absolute() == besides.absolute()):
            continue
        try:
            known = path.is_file() and filetype(str(path), read=False) in ioformats
        except UnknownFileTypeError:
            known = False
        (found if known else others).append(path)
    return found, others


def say_left_out(others: Sequence[Path]) -> None:
    """Tell, on stderr, of what folders hold besides structures."""
    if others:
        listed = ", ".join(f"{path}{'/' * path.is_dir()}" for path in others[:5])
        more = f" and {len(others) - 5} more" * (len(others) > 5)
        print(f"left out, no structures by their names: {listed}{more}", file=sys.stderr)


def forget_results(atoms: Atoms) -> None:
    """Drop what a file said of energies, forces and stress."""
    atoms.calc = None
    for held in (atoms.info, atoms.arrays):
        for key in [key for key in held if key.lower().split("_")[-1] in _STALE]:
            del held[key]


def output_format(path: Path, *, frames: int = 1) -> str:
    """ASE's name for the format of a file to be written.

    Raises:
        InputError: The name says no format that ASE can write, or one that cannot hold so many structures.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if path.suffix in (".xyz", ".extxyz"):
        return "extxyz"
    try:
        name: str = filetype(str(path), read=False)
        writable = ioformats[name].can_write
    except (UnknownFileTypeError, KeyError):
        writable = False
    if not writable:
        raise InputError(
            f"{path}: no structure format ends like this; use .xyz, .cif, .vasp or another that ASE writes"
        )
    if frames > 1 and ioformats[name].single:
        raise InputError(f"{path}: the format {name} holds one structure, but there are {frames}: use .xyz")
    return name


def relaxed_name(path: Path, *, frames: int) -> Path:
    """`STRUCT-relaxed.xyz` beside the input; CIF and POSCAR keep their ending when they hold one
    structure."""
    from ase.io.formats import UnknownFileTypeError, filetype

    suffix = ".xyz"
    if frames == 1:
        try:
            if filetype(str(path), read=False) in _KEPT_FORMATS:
                suffix = path.suffix
        except UnknownFileTypeError:
            pass
    return path.with_name(f"{path.stem}-relaxed{suffix}")


def check_writable(path: Path, *, inputs: Sequence[Path]) -> None:
    """See that a result can go to `path` without touching an input.

    Raises:
        InputError: The folder does not exist, or the file is one of the inputs.
        IsADirectoryError: It is a folder.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist: create it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: the folder {folder} cannot be written to: choose another with --out")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, but must be a file")
    if path.exists() and any(path.samefile(given) for given in inputs):
        raise InputError(f"{path}: is an input, which is never overwritten: choose another name with --out")


def write_structures(path: Path, frames: Sequence[Atoms], *, format: str) -> None:
    """Write all frames under a temporary name, which then takes the place of `path`."""
    import ase.io

    temporary = path.with_name(f".{os.getpid():x}-{path.name}")
    try:
        ase.io.write(temporary, list(frames) if len(frames) > 1 else frames[0], format=format)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
