"""Hessians of frames of the training set that have none: what the head for Hessians learns from, beside those
that labelling and exploring made."""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.generation.labelling import LabelError, Particles, TBLite, hessian
from mlip.datasets.h5_reader import H5Dataset
from mlip.datasets.h5_writer import H5Writer

UP_TO = 20
"""Atoms."""
MINIMA = 0.5
"""Share of minima among the frames."""
COMMIT_EVERY = 100


def add_hessians(data: Path, *, count: int, workers: int, seed: int) -> None:
    """Write `hessians.h5`: the frames that have a Hessian, and `count` others of `train.h5` with one.

    Each of the others is of another molecule, as long as there are so many. Stopped at any moment, the same
    call goes on.
    """
    dataset = H5Dataset(data / "train.h5")
    attributes = {name: dataset.attributes[name] for name in ("level_of_theory", "source", "licence")}
    wanted = {"seed": seed, "count": count}
    with H5Writer(data / "hessians.h5", append=True, attributes=attributes) as writer:
        if not writer.provenance:
            for there in (dataset, H5Dataset(data / "explored.h5")):
                writer.write_many(frame for frame in map(there.__getitem__, range(len(there))) if has(frame))
            writer.provenance = {**wanted, "done": 0}
            writer.commit()
        elif {name: writer.provenance[name] for name in wanted} != wanted:
            sys.exit(f"{writer.path} was begun with other settings: {writer.provenance}")
        before = writer.provenance["done"]
        todo = chosen(dataset, count, seed)[before:]
        begin = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            jobs = map(dataset.__getitem__, todo)
            for done, made in enumerate(pool.imap(labelled, jobs, chunksize=4), start=1):
                if made is not None:
                    writer.write(made)
                if done % COMMIT_EVERY == 0 or done == len(todo):
                    writer.provenance["done"] = before + done
                    writer.commit()
                    left = (time.monotonic() - begin) / done * (len(todo) - done)
                    print(f"{before + done}/{count} Hessians, {left:.0f} s left", file=sys.stderr, flush=True)


def has(frame: Frame) -> bool:
    """Whether it has a Hessian."""
    return frame.hessian is not None


def chosen(dataset: H5Dataset, count: int, seed: int) -> list[int]:
    """Indices of frames: minima and others by turns, of a molecule twice only when all have had one."""
    rng = random.Random(seed)
    kinds: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for i in range(len(dataset)):
        frame = dataset[i]
        if 3 <= len(frame) <= UP_TO and not has(frame):
            kinds[frame.info["kind"] == "minimum"].append((frame.molecule, i))
    out: list[int] = []
    for minima, number in ((True, round(MINIMA * count)), (False, count - round(MINIMA * count))):
        rng.shuffle(kinds[minima])
        seen: dict[str, int] = {}
        turns = []
        for molecule, i in kinds[minima]:
            seen[molecule] = seen.get(molecule, 0) + 1
            turns.append((seen[molecule], i))
        turns.sort(key=lambda turn: turn[0])
        out += [i for _, i in turns[:number]]
    rng.shuffle(out)
    return out


def labelled(frame: Frame) -> Frame | None:
    """The frame with its Hessian by GFN2-xTB; None where that cannot be had."""
    label = TBLite(Particles(frame.atomic_numbers, frame.charge, frame.spin))
    try:
        label(frame.positions)
        return replace(frame, hessian=hessian(label, np.array(frame.positions)))
    except LabelError:
        return None
