"""Dynamics at constant energy of molecules that no part of the training has seen."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from constant_energy import TIMESTEP, constant_energy
from evaluation import bare

from mlip.calculators.batch import BatchCalculator
from mlip.datasets import Frame, H5Dataset

TOGETHER = 9
"""Molecules in one graph: some 150 atoms."""
TEMPERATURE = 300.0
"""K."""

Job = tuple[Path, int, list[Frame], float, Path]


def add_dynamics(
    data: Path, model: Path, result: Path, *, count: int, picoseconds: float, workers: int
) -> None:
    """Write what becomes of `count` molecules of `test.h5`, from their minima, in `picoseconds`.

    Stopped at any moment, the same call goes on where it was.
    """
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    wanted = {"model_sha256": digest, "molecules": count, "picoseconds": picoseconds, "timestep_fs": TIMESTEP}
    found: dict[str, Any] = {**wanted, "temperature": TEMPERATURE, "courses": []}
    if result.exists():
        found = json.loads(result.read_text(encoding="utf-8"))
        if {name: found[name] for name in wanted} != wanted:
            sys.exit(f"{result} was begun with other settings: remove it, or give another --run")
    write(found, result)
    finished = {course["group"] for course in found["courses"]}
    molecules = chosen(H5Dataset(data / "test.h5"), count)
    groups = -(-len(molecules) // TOGETHER)
    todo = [k for k in range(groups) if k not in finished]
    jobs: list[Job] = [
        (model, k, molecules[k::groups], picoseconds, result.with_suffix(f".{k}.npz")) for k in todo
    ]
    begin = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, courses in enumerate(pool.imap_unordered(followed, jobs), start=1):
            found["courses"] += courses
            write(found, result)
            result.with_suffix(f".{courses[0]['group']}.npz").unlink(missing_ok=True)
            left = (time.monotonic() - begin) / done * (len(todo) - done)
            print(f"{len(finished) + done}/{groups} groups, {left:.0f} s left", file=sys.stderr, flush=True)


def write(found: dict[str, Any], result: Path) -> None:
    """What was found so far."""
    temporary = result.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(temporary, result)


def chosen(dataset: H5Dataset, count: int) -> list[Frame]:
    """Minima of single molecules, spread evenly over all that there are.

    Raises:
        SystemExit: There are fewer than `count`.
    """
    frames = (dataset[k] for k in range(len(dataset)))
    minima = {f.molecule: f for f in frames if f.info["kind"] == "minimum" and "." not in f.molecule}
    some = [frame for frame in minima.values() if len(frame) > 2]
    if count > len(some):
        sys.exit(f"{dataset.path} has {len(some)} molecules, fewer than {count}: give a smaller --nve")
    return [some[k * len(some) // count] for k in range(count)]


def followed(job: Job) -> Sequence[dict[str, Any]]:
    """What became of the molecules of a group."""
    model, group, molecules, picoseconds, state = job
    surface = BatchCalculator(str(model), dtype="float32")
    courses = constant_energy(
        [bare(frame) for frame in molecules],
        surface,
        temperature=TEMPERATURE,
        picoseconds=picoseconds,
        seed=1 + group,
        state=state,
    )
    return [
        {"group": group, "molecule": frame.molecule, "atoms": len(frame), **asdict(course)}
        for frame, course in zip(molecules, courses, strict=True)
    ]
