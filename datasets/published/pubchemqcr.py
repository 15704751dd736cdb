"""PubChemQCR: relaxation trajectories of some 3.5 million molecules of PubChem.

LMDB shards. The key is the CID, nine digits; the value is `gzip(pickle)` of plain lists and dictionaries:
`{"pm3", "hf", "DFT_1st", "DFT_2nd": [step, …]}`, each step `{"coordinates": [{"atom": symbol, "charge": Z,
"x", "y", "z"}, …] in Å, "energy" in hartree, "gradient": [{"atom", "charge", "dx", "dy", "dz"}, …] in
hartree/bohr}`; the force is minus the gradient. A stage may be None; `charge` (the nuclear one) may be
missing; steps that lack something are skipped.

The two DFT stages (B3LYP/6-31G*) are read, each a trajectory of its own; PM3 and HF are other methods and
are left out. The last geometry of a stage is the first one of the next.

Source: divelab/AIRS `OpenMol/TDN/{DATABASE.md,data.py}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.published.lmdb_file import open_lmdb
from mlip.datasets.published.restricted_pickle import decompress, unpickle
from mlip.datasets.report import ReadReport
from mlip.errors import InputError
from mlip.units import HARTREE, HARTREE_PER_BOHR

STAGES = ("DFT_1st", "DFT_2nd")
_OTHERS = ("pm3", "hf")
_LARGEST = 1 << 28


def iter_pubchemqcr(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of one shard, molecule by molecule, stage by stage, in the order of the steps.

    Raises:
        InputError: It is damaged, or not of this layout.
    """
    with open_lmdb(path) as file:
        for key, value in file.items():
            where = file.where(key)
            record = unpickle(decompress(value, where=where, largest=_LARGEST), where=where)
            if not isinstance(record, dict) or not set(record) & {*STAGES, *_OTHERS}:
                raise InputError(f"{where}: has none of the stages {', '.join((*_OTHERS, *STAGES))}")
            cid = key.decode("ascii", "backslashreplace").lstrip("0") or "0"
            for stage in _OTHERS:
                if record.get(stage):
                    report.skipped[f"{stage}: another method"] += len(record[stage])
            for stage in STAGES:
                if record.get(stage) is None:
                    report.skipped[f"{stage} is missing (whole stages)"] += 1
                    continue
                yield from _stage(record[stage], cid, stage, report, where=where)


def _stage(steps: Any, cid: str, stage: str, report: ReadReport, *, where: str) -> Iterator[Frame]:
    if not isinstance(steps, list | tuple):
        raise InputError(f"{where}: `{stage}` is a {type(steps).__name__} but must be a list of steps")
    for i, step in enumerate(steps):
        reason = _incomplete(step)
        if reason:
            report.skipped[reason] += 1
            continue
        try:
            frame = Frame(
                positions=np.array([[a["x"], a["y"], a["z"]] for a in step["coordinates"]], dtype=np.float64),
                atomic_numbers=_atomic_numbers(step["coordinates"]),
                energy=float(step["energy"]) * HARTREE,
                forces=np.array([[a["dx"], a["dy"], a["dz"]] for a in step["gradient"]], dtype=np.float64)
                * -HARTREE_PER_BOHR,
                molecule=f"CID {cid}",
                trajectory=f"CID {cid} {stage}",
                step=i,
                info={"stage": stage},
            )
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"{where}: step {i} of `{stage}` is not as documented ({what})") from error
        report.took("energy", "energy (hartree)")
        report.took("forces", "-gradient (hartree/bohr)")
        yield frame


def _incomplete(step: Any) -> str:
    """Why a step is no use; "" if it is."""
    if not isinstance(step, dict):
        return "step without content"
    for name in ("coordinates", "energy", "gradient"):
        if step.get(name) is None or step[name] == []:
            return f"step without {name}"
    if len(step["coordinates"]) != len(step["gradient"]):
        return "gradient and coordinates of different lengths"
    return ""


def _atomic_numbers(atoms: Any) -> np.ndarray:
    from ase.data import atomic_numbers

    return np.array([atomic_numbers[str(a["atom"]).strip().capitalize()] for a in atoms], dtype=np.int64)
