"""Shards of a run gathered into HDF5 files, one for every part of the split, and counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.generation.shards import num_shards, read_plan
from mlip.datasets.h5_writer import H5Writer
from mlip.errors import InputError

MAX_ENERGY = 1.0
"""eV per atom above the lowest frame of the source; higher frames are left out."""


@dataclass(eq=False)
class PartSummary:
    """Counts of one part of the split."""

    sources: int = 0
    frames: int = 0
    atoms: int = 0
    hessians: int = 0
    groups: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    elements: Counter[int] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    force_squares: float = 0.0

    def add(self, frames: list[Frame]) -> None:
        """Count the frames of one source."""
        self.sources += 1
        self.frames += len(frames)
        self.kinds.update(str(f.info["kind"]) for f in frames)
        for frame in frames:
            self.atoms += len(frame)
            self.groups.add(frame.group)
            self.elements.update(frame.atomic_numbers.tolist())
            self.hessians += frame.hessian is not None
            if frame.forces is not None:
                self.force_squares += float(np.sum(np.square(frame.forces)))

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        from ase.data import chemical_symbols

        return {
            "sources": self.sources,
            "groups": len(self.groups),
            "frames": self.frames,
            "atoms": self.atoms,
            "atoms_per_frame": self.atoms / max(1, self.frames),
            "hessians": self.hessians,
            "force_rms_eV_per_A": (self.force_squares / max(1, 3 * self.atoms)) ** 0.5,
            "frames_by_kind": dict(self.kinds.most_common()),
            "atoms_by_element": {chemical_symbols[z]: n for z, n in sorted(self.elements.items())},
            "discarded": dict(self.discarded.most_common()),
        }


def pack(folder: Path, out: Path | None = None) -> dict[str, Any]:
    """Write one HDF5 file for every part of the split, and `summary.json`, of the shards there are.

    May be called while a run goes on: shards are complete, and sources are in random order.

    Args:
        folder: Of a run.
        out: Folder of the files; by default the run's.

    Returns:
        What `summary.json` holds.

    Raises:
        InputError: The folder is not of a run, has no shard yet, or a group is in two parts.
    """
    plan, out = read_plan(folder), out or folder
    shards = sorted((folder / "shards").glob("*.npz"))
    if not shards:
        raise InputError(f"{folder / 'shards'}: there are no shards yet")
    planned = num_shards(plan)
    versions = ", ".join(f"{k} {v}" for k, v in plan["versions"].items())
    attributes = {
        "level_of_theory": plan["level_of_theory"],
        "source": f"{plan['about']}: seed {plan['seed']}, {versions}",
        "licence": plan["licence"],
    }
    provenance = {k: plan[k] for k in ("about", "seed", "versions")} | {"shards": [len(shards), planned]}
    splits = {s["name"]: s["split"] or "frames" for s in plan["sources"]}
    parts = {name: PartSummary() for name in splits.values()}
    writers = {name: H5Writer(out / f"{name}.h5", attributes=attributes) for name in parts}
    try:
        for path in shards:
            for note, frames in read_shard(path):
                name = splits[note["name"]]
                parts[name].discarded.update(note.get("discarded", {}))
                if "rejected" in note:
                    parts[name].discarded[f"whole source: {note['rejected']}"] += 1
                    continue
                parts[name].add(frames)
                writers[name].write_many(frames)
        _require_apart(parts)
        for writer in writers.values():
            writer.provenance = provenance
            writer.commit()
    finally:
        for writer in writers.values():
            writer.close()
    summary = {
        **attributes,
        "shards": [len(shards), planned],
        "parts": {k: p.as_dict() for k, p in parts.items()},
    }
    temporary = out / "summary.json.tmp"
    temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, out / "summary.json")
    return summary


def read_shard(path: Path) -> Iterator[tuple[dict[str, Any], list[Frame]]]:
    """Every source of a shard: its note, and its frames but those of too high an energy."""
    with np.load(path, allow_pickle=False) as arrays:
        for k, note in enumerate(json.loads(str(arrays["notes"]))):
            if f"{k}/energy" not in arrays:
                yield note, []
                continue
            numbers, energies = arrays[f"{k}/numbers"], arrays[f"{k}/energy"]
            positions, forces = arrays[f"{k}/positions"], arrays[f"{k}/forces"]
            hessians: dict[int, np.ndarray] = {}
            if f"{k}/hessian_of" in arrays:
                hessians = dict(zip(arrays[f"{k}/hessian_of"].tolist(), arrays[f"{k}/hessian"], strict=True))
            low = np.flatnonzero(energies - energies.min() <= MAX_ENERGY * len(numbers)).tolist()
            note["discarded"]["energy above limit"] = len(energies) - len(low)
            frames = []
            for i in low:
                about = note["frames"][i]
                frames.append(
                    Frame(
                        positions=positions[i],
                        atomic_numbers=numbers,
                        energy=float(energies[i]),
                        forces=forces[i],
                        hessian=hessians.get(i),
                        group=note["group"],
                        molecule=note["smiles"] or note["name"],
                        reaction=_named(note["name"], about["reaction"]),
                        trajectory=_named(note["name"], about["trajectory"]),
                        step=about["step"],
                        charge=note["charge"],
                        spin=note["spin"],
                        info={"kind": about["kind"]},
                    )
                )
            yield note, frames


def _named(source: str, name: str) -> str:
    return f"{source}/{name}" if name else ""


def _require_apart(parts: dict[str, PartSummary]) -> None:
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[:i]:
            shared = parts[first].groups & parts[second].groups - {""}
            if shared:
                raise InputError(
                    f"{len(shared)} groups are in {first} and {second}, for instance {min(shared)}"
                )
