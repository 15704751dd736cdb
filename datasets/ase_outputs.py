"""Outputs of electronic-structure programs, through ASE: VASP, ORCA, Gaussian, Quantum ESPRESSO and others.

Only formats that hold energies or forces as text are read; ASE knows some that are pickles, which are not
among them. Every file is one trajectory, named after it and its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from mlip.datasets.records import RawFrame, record_of_atoms
from mlip.errors import InputError

READABLE: Final = (
    "abinit-out",
    "aims-output",
    "castep-castep",
    "espresso-out",
    "gamess-us-out",
    "gaussian-out",
    "gpaw-out",
    "nwchem-out",
    "orca-output",
    "qbox",
    "vasp-out",
    "vasp-xml",
)
"""Names in ASE."""


def is_output(path: Path) -> bool:
    """Whether a file is the output of a program that is known."""
    return _kind(path) is not None


def iter_outputs(path: Path) -> Iterator[RawFrame]:
    """Structures of a file in order, with the results that were printed for each.

    Raises:
        InputError: The program is not known, or ASE cannot read the file.
    """
    from ase.io import iread

    kind = _kind(path)
    if kind is None:
        raise InputError(f"{path}: not the output of a program that is known: {', '.join(READABLE)}")
    name = f"{path.absolute().parent.name}/{path.name}"
    frame = 0
    try:
        for frame, atoms in enumerate(iread(str(path), index=":", format=kind)):
            raw = record_of_atoms(atoms, where=f"frame {frame} of {path}")
            yield replace(raw, info={"trajectory": name, "step": frame, **raw.info})
    except InputError:
        raise
    except Exception as error:  # ASE's readers raise whatever goes wrong in them
        raise InputError(
            f"{path}: ASE cannot read it as {kind} (after {frame} frames; {type(error).__name__}: {error})"
        ) from error


def _kind(path: Path) -> str | None:
    """ASE's name of the format of a file, by name and content."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        kind = filetype(str(path), read=True)
    except (UnknownFileTypeError, OSError, UnicodeDecodeError):
        return None
    return kind if kind in READABLE else None
