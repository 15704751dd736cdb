"""Which data set a file of a common container holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlip.datasets.h5_schema import FORMAT
from mlip.datasets.published.foreign_h5 import groups, open_foreign
from mlip.datasets.published.graph_lmdb import fields
from mlip.datasets.published.lmdb_file import open_lmdb
from mlip.errors import InputError

_IN_A_GROUP = (("conformations", "spice"), ("coordinates", "ani1x"))


def flavour_of_hdf5(path: Path) -> str:
    """Name of the format of an HDF5 file; `hdf5`, whose reader says what is wrong, if none is known."""
    try:
        with open_foreign(path) as file:
            return "hdf5" if file.attrs.get("format") == FORMAT else _foreign(file)
    except InputError:
        return "hdf5"


def _foreign(file: Any) -> str:
    if "data" in file:
        for _, formula in groups(file["data"]):
            if any("positions" in reaction for _, reaction in groups(formula)):
                return "transition1x"
    for _, group in groups(file):
        for name, flavour in _IN_A_GROUP:
            if name in group:
                return flavour
        if any("atXYZ" in geometry for _, geometry in groups(group)):
            return "qm7x"
        if len(group):
            break
    return "hdf5"


def flavour_of_lmdb(path: Path) -> str:
    """Name of the format of an LMDB file.

    Raises:
        InputError: It is damaged, or none that is known.
    """
    with open_lmdb(path) as file:
        if file.get(b"nextid") is not None:
            return "ase-lmdb"
        first = file.get(b"0")
        if first is not None and first[:1] == b"\x80":
            found = fields(first, where=file.where(b"0"))
            return "horm" if {"hessian", "one_hot"} & set(found) else "oc-lmdb"
        key, value = next(file.items(), (b"", b""))
        if value[:2] == b"\x1f\x8b":
            return "pubchemqcr"
        raise InputError(
            f"{path}: an LMDB file of an unknown kind (first key {key[:20]!r}); known are ASE-LMDB, "
            "graphs of OC20, OC22 and HORM, and PubChemQCR"
        )
