"""The formats that can be read: one table, and which of them a file has."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlip.errors import InputError


@dataclass(frozen=True)
class Format:
    """One way in which labelled structures are kept.

    Attributes:
        about: Which files these are.
        reader: Module and function that yield the frames, imported only when needed.
        named: Labels have names of their own in each file (`LabelKeys`), rather than one name and unit each.
        published: A public data set: records that are of no use are skipped and counted, not refused.
        level_of_theory: Of the published labels.
        licence: Of the published data.
    """

    about: str
    reader: str
    named: bool = False
    published: bool = False
    level_of_theory: str = ""
    licence: str = ""

    def load(self) -> Callable[..., Any]:
        """The function that reads."""
        module, function = self.reader.split(":")
        return getattr(importlib.import_module(f"mlip.datasets.{module}"), function)


def _public(about: str, reader: str, level: str = "", licence: str = "") -> Format:
    return Format(about, f"published.{reader}", published=True, level_of_theory=level, licence=licence)


FORMATS: Final[dict[str, Format]] = {
    "extxyz": Format(".xyz, .extxyz, also .gz, .bz2, .xz", "extxyz:iter_extxyz", named=True),
    "ase-db": Format(".db: ASE database", "ase_database:iter_database", named=True),
    "ase-json": Format(".json: ASE database", "ase_database:iter_database", named=True),
    "ase-traj": Format(".traj: ASE trajectory", "ase_database:iter_trajectory", named=True),
    "ase-output": Format(
        "OUTCAR, vasprun.xml, and outputs of ORCA, Gaussian, Quantum ESPRESSO, FHI-aims and others",
        "ase_outputs:iter_outputs",
        named=True,
    ),
    "hdf5": Format(".h5, .hdf5: our layout", "h5_reader:iter_h5"),
    "mlearn": Format(".json, .json.gz: mlearn", "mlearn:iter_mlearn"),
    "npz": Format(".npz: rMD17, MD17 and sGDML", "npz:iter_npz"),
    "ani1x": _public(".h5: ANI-1x", "ani1x:iter_ani1x", "wB97X/6-31G*", "CC0-1.0"),
    "ase-lmdb": _public(
        ".aselmdb: OMol25, OMat24, sAlex, OMC25, OC25, ODAC25", "ase_lmdb:iter_ase_lmdb", "", "CC-BY-4.0"
    ),
    "horm": _public(".lmdb: HORM", "horm:iter_horm", "wB97X/6-31G(d)", "CC-BY-NC-SA-4.0"),
    "mptrj": _public(".json: MPtrj", "mptrj:iter_mptrj", "PBE and PBE+U (VASP)", "MIT"),
    "oc-lmdb": _public(".lmdb: OC20, OC22, ODAC23", "oc_lmdb:iter_oc", "", "CC-BY-4.0"),
    "oc20-extxyz": _public(
        ".extxyz.xz with .txt.xz: OC20", "oc20_extxyz:iter_oc20", "RPBE (VASP)", "CC-BY-4.0"
    ),
    "pubchemqcr": _public(".lmdb: PubChemQCR", "pubchemqcr:iter_pubchemqcr", "B3LYP/6-31G*"),
    "qm7x": _public(".hdf5: QM7-X", "qm7x:iter_qm7x", "PBE0+MBD", "CC-BY-4.0"),
    "spice": _public(".hdf5: SPICE", "spice:iter_spice", "wB97M-D3(BJ)/def2-TZVPPD", "CC0-1.0"),
    "transition1x": _public(".h5: Transition1x", "transition1x:iter_transition1x", "wB97x/6-31G(d)", "MIT"),
}
"""By name, as in `--format`."""

_BY_SUFFIX = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".db": "ase-db",
    ".traj": "ase-traj",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
    ".aselmdb": "ase-lmdb",
    ".lmdb": "lmdb",
    ".mdb": "lmdb",
}
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MPTRJ = re.compile(rb'\s*\{\s*"(mp|mvc)-\d+"\s*:')
ENDINGS = (
    ".xyz, .extxyz, .db, .traj, .json, .h5, .hdf5, .npz, .lmdb, .aselmdb, and .xyz, .extxyz or .json with .gz"
)


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    if name not in FORMATS:
        raise InputError(f"`format` is {name!r} but must be one of {', '.join(FORMATS)}")
    return FORMATS[name]


def detect_format(path: Path) -> str:
    """Name of the format of a file, by its ending and, where that leaves a choice, by its content.

    Args:
        path: A file, or where one is to be written: then the ending decides.

    Raises:
        InputError: It is none of `FORMATS`.
    """
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in _OPENERS
    inner = suffixes[-2:-1] if packed else suffixes[-1:]
    if inner == [".json"]:
        return _json_flavour(path)
    name = _BY_SUFFIX.get(inner[0]) if inner else None
    if packed and name != "extxyz":
        name = None
    exists = path.is_file() and path.stat().st_size > 0
    if name == "extxyz" and inner == [".extxyz"] and exists:
        from mlip.datasets.published.oc20_extxyz import is_pair

        return "oc20-extxyz" if is_pair(path) else name
    if name == "hdf5" and exists:
        from mlip.datasets.published.flavours import flavour_of_hdf5

        return flavour_of_hdf5(path)
    if name == "lmdb":
        from mlip.datasets.published.flavours import flavour_of_lmdb

        return flavour_of_lmdb(path)
    if name is None and exists and not packed:
        from mlip.datasets.ase_outputs import is_output

        name = "ase-output" if is_output(path) else None
    if name is None:
        raise InputError(
            f"{path}: cannot tell the format from the ending; known ones: {ENDINGS}; "
            "and outputs of programs that ASE knows"
        )
    return name


def _json_flavour(path: Path) -> str:
    """mlearn files are a list, ASE's databases an object with numbers for keys, MPtrj one with `mp-…`."""
    if not path.is_file():
        return "ase-json"
    head = b""
    try:
        with _open(path) as stream:
            head = stream.read(256)
    except (EOFError, OSError, zlib.error):
        pass  # the reader says what is wrong
    if _MPTRJ.match(head):
        return "mptrj"
    return "ase-json" if head.lstrip()[:1] == b"{" and path.suffix == ".json" else "mlearn"


def _open(path: Path) -> Any:
    """The content of a file, decompressed if it is gzip'd or bzip2'd, whatever its name."""
    with path.open("rb") as stream:
        magic = stream.read(3)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)
    return bz2.open(path) if magic == b"BZh" else path.open("rb")
