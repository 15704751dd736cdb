"""OC20, OC22 and ODAC23 as graph LMDB (S2EF shards, IS2RE and IS2RS).

Fields (`graph_lmdb`): `pos` (N, 3) Å, `cell` (1, 3, 3) Å, `atomic_numbers` (float32!), `sid` (system),
`fid` (step of its relaxation), `tags`, `fixed`; labels `y` and `force`, since April 2024 `energy` and
`forces` (eV, eV/Å); of IS2RE and IS2RS `y_init`, `y_relaxed`, `pos_relaxed`. All cells are periodic in
three directions.

The energy of OC20 and ODAC23 is an *adsorption* energy, relative to slab (or framework) and gas; of OC22 (a
field `oc22`) it is the total energy; `raw_y` of ODAC23 is the total energy, too, and is preferred. Constant
offsets for each system, they leave the forces alone, but never mix the two kinds.

Source: Open-Catalyst-Project/ocp (`preprocessing/atoms_to_graphs.py`,
`docs/core/lmdb_dataset_creation.md`); issues 431, 580, 620, 633 of fairchem. CC-BY-4.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.published.graph_lmdb import array, iter_graphs, number
from mlip.datasets.published.lmdb_file import open_lmdb
from mlip.datasets.report import ReadReport
from mlip.errors import InputError


def iter_oc(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one file; of IS2RE records the initial and, where it is given, the relaxed structure.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_lmdb(path) as file:
        for where, found in iter_graphs(file):
            try:
                yield from _frames(found, report, where=where)
            except InputError as error:
                text = str(error)
                raise InputError(text if text.startswith(where) else f"{where}: {text}") from error


def _frames(found: dict[str, Any], report: ReadReport, *, where: str) -> Iterator[Frame]:
    positions = array(found, "pos", (-1, 3), where=where)
    shape = positions.shape
    system = number(found, "sid", where=where)
    step = number(found, "fid", where=where)
    name = "" if system is None else f"{'oc22-' if 'oc22' in found else 'random'}{system:.0f}"
    common: dict[str, Any] = {
        "atomic_numbers": array(found, "atomic_numbers", (len(positions),), where=where).astype(np.int64),
        "cell": array(found, "cell", (3, 3), where=where),
        "pbc": np.ones(3, dtype=bool),
        "molecule": name,
        "trajectory": name,
    }
    if "y_relaxed" in found or "y_init" in found:
        yield Frame(positions=positions, energy=_taken(found, "y_init", report, where), step=0, **common)
        if "pos_relaxed" in found:
            relaxed = array(found, "pos_relaxed", shape, where=where)
            yield Frame(positions=relaxed, energy=_taken(found, "y_relaxed", report, where), step=1, **common)
        return
    energy = next((k for k in ("raw_y", "energy", "y") if k in found), "")
    forces = next((k for k in ("forces", "force") if k in found), "")
    if forces:
        report.took("forces", f"{forces} (eV/Å)")
    yield Frame(
        positions=positions,
        energy=_taken(found, energy, report, where),
        forces=array(found, forces, shape, where=where) if forces else None,
        step=-1 if step is None else int(step),
        **common,
    )


def _taken(found: dict[str, Any], name: str, report: ReadReport, where: str) -> float | None:
    """An energy; the report says which kind."""
    value = number(found, name, where=where)
    if value is not None:
        kind = "total" if "oc22" in found or name == "raw_y" else "adsorption"
        report.took("energy", f"{name} (eV, {kind} energy)")
    return value
