"""Transition1x: paths of 10,000 elementary organic reactions, ωB97x/6-31G(d), HDF5.

`/data/<formula>/<rxnNNNN>/{atomic_numbers (N), positions (M, N, 3) Å, "wB97x_6-31G(d).energy" (M) eV,
"wB97x_6-31G(d).forces" (M, N, 3) eV/Å}`, rows in the order in which the nudged elastic band was calculated;
row 0 is the reactant, row 9 the product. Subgroups `reactant`, `transition_state` and `product` repeat rows
and are not read. `/train`, `/val` and `/test` link formulas of `/data`: the published split, kept in
`info`; it divides by formula, which is the group.

Source: matschreiner/Transition1x `scripts/combine_dbs.py`, `dataloader.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame, Scalar
from mlip.datasets.published.foreign_h5 import dataset, groups, open_foreign, require, rows
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

ENERGY, FORCES = "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces"
_SPLITS = ("train", "val", "test")


def iter_transition1x(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of the file, reaction by reaction.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_foreign(path) as file:
        if "data" not in file:
            raise InputError(f"{path}: has no group `data`, so it is not Transition1x")
        split_of = {formula: split for split in _SPLITS if split in file for formula in file[split]}
        for formula, reactions in groups(file["data"]):
            info: dict[str, Scalar] = {"split": split_of[formula]} if formula in split_of else {}
            for name, reaction in groups(reactions):
                yield from _reaction(reaction, formula, name, info, report, where=f"{path}: {formula}/{name}")


def _reaction(
    group: Any, formula: str, name: str, info: dict[str, Scalar], report: ReadReport, *, where: str
) -> Iterator[Frame]:
    numbers = np.asarray(dataset(group, "atomic_numbers", where=where)[()], dtype=np.int64).ravel()
    positions = require(dataset(group, "positions", where=where), (-1, len(numbers), 3), where=where)
    count = len(positions)
    energy = require(dataset(group, ENERGY, where=where), (count,), where=where)
    forces = require(dataset(group, FORCES, where=where), (count, len(numbers), 3), where=where)
    report.took("energy", f"{ENERGY} (eV)", count=count)
    report.took("forces", f"{FORCES} (eV/Å)", count=count)
    columns = (rows(positions, count), rows(energy, count), rows(forces, count))
    for i, (x, e, f) in enumerate(zip(*columns, strict=True)):
        yield Frame(
            positions=x,
            atomic_numbers=numbers,
            energy=float(e),
            forces=f,
            group=formula,
            reaction=f"{formula}/{name}",
            trajectory=f"{formula}/{name}",
            step=i,
            info=info,
        )
