"""Gather labelled shards into one HDF5 file per split, and summarise what was kept and what was not."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.h5_writer import H5Writer

SPLITS = ("train", "valid", "test", "larger")
MAX_ENERGY = 1.0  # eV per atom above the lowest frame of the molecule; few frames are higher


def read_shard(path: Path) -> Iterator[tuple[dict[str, Any], list[Frame]]]:
    """Each molecule of a shard, with its frames (none where the molecule was rejected)."""
    with np.load(path, allow_pickle=False) as arrays:
        for k, note in enumerate(json.loads(str(arrays["notes"]))):
            if note["rejected"]:
                yield note, []
                continue
            numbers, energies = arrays[f"{k}/numbers"], arrays[f"{k}/energy"]
            low = energies - energies.min() <= MAX_ENERGY * len(numbers)
            note["discarded"]["energy above limit"] = int((~low).sum())
            note["kinds"] = [kind for kind, kept in zip(note["kinds"], low, strict=True) if kept]
            rows = np.flatnonzero(low)
            positions, forces = arrays[f"{k}/positions"], arrays[f"{k}/forces"]
            yield (
                note,
                [
                    Frame(
                        positions=positions[i],
                        atomic_numbers=numbers,
                        energy=float(energies[i]),
                        forces=forces[i],
                        group=note["group"],
                        info={"smiles": note["smiles"], "kind": kind},
                    )
                    for i, kind in zip(rows, note["kinds"], strict=True)
                ],
            )


class Summary:
    """Running counts and force statistics of one split."""

    def __init__(self) -> None:
        self.molecules: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.discarded: Counter[str] = Counter()
        self.groups: set[str] = set()
        self.atoms = 0
        self.force_squares = 0.0

    def add(self, note: dict[str, Any], frames: list[Frame]) -> None:
        self.discarded.update(note["discarded"])
        if note["rejected"]:
            self.discarded["whole molecule: " + note["rejected"]] += 1
            return
        size = "cluster" if note["kind"] == "cluster" else f"{note['heavy']:02d} heavy atoms"
        self.molecules[size] += 1
        self.groups.add(note["group"])
        self.kinds.update(note["kinds"])
        for frame in frames:
            self.atoms += len(frame)
            self.force_squares += float(np.sum(np.square(frame.forces)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "molecules": sum(self.molecules.values()),
            "groups": len(self.groups),
            "frames": sum(self.kinds.values()),
            "atoms": self.atoms,
            "force_rms_eV_per_A": (self.force_squares / max(1, 3 * self.atoms)) ** 0.5,
            "molecules_by_size": dict(sorted(self.molecules.items())),
            "frames_by_kind": dict(self.kinds.most_common()),
            "discarded": dict(self.discarded.most_common()),
        }


def pack(out: Path, *, first: int | None = None) -> None:
    """Write `out`/{train,valid,test,larger}.h5 and `out`/summary.json from the shards under `out`/shards.

    Args:
        out: Folder of the data set.
        first: Use the first so many shards only; molecules are in random order, so this is a random subset.
    """
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    shards = sorted((out / "shards").glob("*.npz"))[:first]
    how = [
        f"seed {plan['seed']}",
        f"scale {plan['scale']:g}",
        *(f"{k} {v}" for k, v in plan["versions"].items()),
    ]
    attributes = {
        "level_of_theory": plan["level_of_theory"],
        "source": "examples/bundled_model/generate.py: " + ", ".join(how),
        "licence": plan["license"],
    }
    summaries = {split: Summary() for split in SPLITS}
    writers = {split: H5Writer(out / f"{split}.h5", attributes=attributes) for split in SPLITS}
    for path in shards:
        for note, frames in read_shard(path):
            summaries[note["split"]].add(note, frames)
            writers[note["split"]].write_many(frames)
    for writer in writers.values():
        with writer:
            pass
    groups = [s.groups for s in summaries.values()]
    shared = {g for i, a in enumerate(groups) for b in groups[:i] for g in a & b}
    if shared:
        raise RuntimeError(f"{len(shared)} groups are in two splits, for instance {min(shared)}")
    planned = -(-len(plan["entries"]) // 25)
    if len(shards) < planned:
        print(f"packed {len(shards)} of {planned} shards", file=sys.stderr)
    summary = {
        "attributes": attributes,
        "free_atoms": plan["free_atoms"],
        "shards": [len(shards), planned],
        "splits": {k: s.as_dict() for k, s in summaries.items()},
    }
    temporary = out / "summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    os.replace(temporary, out / "summary.json")
    print(json.dumps({k: v["frames"] for k, v in summary["splits"].items()}))
