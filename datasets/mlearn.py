"""The mlearn data of Zuo et al.: JSON lists of pymatgen structures with VASP results.

Source: Zuo et al., J. Phys. Chem. A 124, 731 (2020), https://github.com/materialsvirtuallab/mlearn. Each
entry has `structure` (pymatgen's dictionary), `outputs` with `energy` (eV), `forces` (eV/Å) and
`virial_stress` (kbar, VASP's order XX YY ZZ XY YZ ZX and VASP's sign, pressure positive), `group` and
`description`. The dictionary is read directly, so pymatgen need not be installed.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.report import ReadReport
from mlip.errors import InputError
from mlip.units import KBAR

_SNAPSHOT = re.compile(r"^Snapshot \d+ of \d+ of |, strain .*$")
_LABELS = {
    "energy": "outputs.energy",
    "forces": "outputs.forces",
    "stress": "outputs.virial_stress (kbar, VASP sign and order)",
}


def iter_mlearn(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of a `.json` or `.json.gz` file.

    `Frame.group` is the simulation or deformation mode (the description without the snapshot or strain), so
    that correlated frames share a group; `info["config_type"]` is the file's own `group`.

    Raises:
        InputError: Not such a file, or cut short.
    """
    try:
        with open_json(path) as stream:
            entries = json.load(stream)
    except (json.JSONDecodeError, EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not complete JSON ({error})") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: must hold a list of structures, but holds a {type(entries).__name__}")
    for i, entry in enumerate(entries):
        yield _frame(entry, report, where=f"entry {i} of {path}")


def _frame(entry: Any, report: ReadReport, *, where: str) -> Frame:
    if not isinstance(entry, dict) or not isinstance(entry.get("structure"), dict):
        raise InputError(f"{where}: has no `structure`, so this is not mlearn JSON")
    outputs = entry.get("outputs") or {}
    report.present.update(f"outputs.{k}" for k in outputs)
    numbers, positions, cell = structure_of_pymatgen(entry["structure"], where)
    virial = outputs.get("virial_stress")
    for label, source in _LABELS.items():
        if outputs.get(source.split(".")[1].split(" ")[0]) is not None:
            report.took(label, source)
    info = {k: entry[k] for k in ("description", "tag") if isinstance(entry.get(k), str)}
    if isinstance(entry.get("group"), str):
        info["config_type"] = entry["group"]
    try:
        return Frame(
            positions=positions,
            atomic_numbers=numbers,
            cell=cell,
            pbc=np.ones(3, dtype=bool),
            energy=outputs.get("energy"),
            forces=outputs.get("forces"),
            stress=None if virial is None else stress_of_vasp(virial),
            group=_SNAPSHOT.sub("", info.get("description", "")),
            info=info,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def stress_of_vasp(values: Any) -> np.ndarray:
    """Stress (3, 3), eV/Å³, tension positive, from VASP's XX YY ZZ XY YZ ZX in kbar, pressure positive."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (6,):
        raise InputError(f"`virial_stress` has shape {array.shape} but must be six numbers")
    xx, yy, zz, xy, yz, zx = (-KBAR * array).tolist()
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])


def structure_of_pymatgen(structure: dict[str, Any], where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers, positions and cell of pymatgen's dictionary.

    Raises:
        InputError: It is none, or has partly occupied sites.
    """
    from ase.data import atomic_numbers

    try:
        cell = np.array(structure["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
        fractional = np.array([site["abc"] for site in structure["sites"]], dtype=np.float64).reshape(-1, 3)
        species = [site["species"] for site in structure["sites"]]
        symbols = [str(s[0]["element"]) for s in species]
        whole = all(len(s) == 1 and float(s[0]["occu"]) == 1.0 for s in species)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: `structure` is not a pymatgen structure ({type(error).__name__}: {error})"
        ) from error
    if not whole:
        raise InputError(f"{where}: has partly occupied sites, which have no positions of atoms")
    unknown = next((s for s in symbols if atomic_numbers.get(s, 0) == 0), None)
    if unknown is not None:
        raise InputError(f"{where}: {unknown!r} is not the symbol of an element")
    return np.array([atomic_numbers[s] for s in symbols]), fractional @ cell, cell


def open_json(path: Path) -> IO[bytes]:
    """A file, decompressed if it is gzip'd, whatever its name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")
