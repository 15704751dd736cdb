"""Make the training data of the bundled model: GFN2-xTB energies and forces of small organic molecules.

    python examples/bundled_model/generate.py label --out DATA --seed 1 [--workers N]
    python examples/bundled_model/generate.py pack --out DATA

`label` lists the molecules, then labels them in shards of 25 under DATA/shards. Stopped at any moment, the
same command goes on where it left off. `pack` gathers the shards that there are into
DATA/{train,valid,test,larger}.h5 and DATA/summary.json. `label` needs tblite, rdkit and ase; `pack` needs
polyad. The same seed and versions give the same molecules and, up to rounding, the same frames.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per process: molecules are small

SHARD = 25
QUOTA = {6: 600, 7: 700, 8: 700, 9: 700}
NUM_PAIRS = 250
VALID, TEST = 0.03, 0.07
FREE_ATOM_UNPAIRED = {1: 1, 6: 2, 7: 3, 8: 2}
SPLITS = ("train", "valid", "test", "larger")


def make_plan(*, seed: int, scale: float) -> dict[str, Any]:
    """What is going to be labelled, with the versions that decide it."""
    from molecules import all_entries

    quota = {n: round(scale * k) for n, k in QUOTA.items()}
    entries = all_entries(quota=quota, num_pairs=round(scale * NUM_PAIRS), seed=seed, valid=VALID, test=TEST)
    return {
        "level_of_theory": "GFN2-xTB",
        "license": "CC0-1.0",
        "seed": seed,
        "scale": scale,
        "versions": {name: version(name) for name in ("tblite", "rdkit", "ase", "numpy")},
        "free_atoms": free_atoms(),
        "entries": [asdict(e) for e in entries],
    }


def free_atoms() -> dict[str, dict[str, float]]:
    """GFN2-xTB energies (eV) of free atoms with Hund's number of unpaired electrons.

    GFN2 in tblite has no spin polarisation by default: the unpaired electrons only fix the occupations.
    """
    from ase.units import Hartree
    from tblite.interface import Calculator

    out = {}
    for number, unpaired in FREE_ATOM_UNPAIRED.items():
        calculator = Calculator("GFN2-xTB", np.array([number]), np.zeros((1, 3)), uhf=unpaired)
        calculator.set("verbosity", 0)
        out[str(number)] = {"unpaired": unpaired, "energy": calculator.singlepoint().get("energy") * Hartree}
    return out


def write_atomically(path: Path, content: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content)
    os.replace(temporary, path)


def label_shard(job: tuple[Path, int, list[dict[str, Any]]]) -> tuple[str, int, Counter[str]]:
    """Label one shard and store it; the random numbers of a molecule follow from seed and SMILES."""
    from frames import Rejected, SCFError, cluster_frames, molecule_frames

    path, seed, entries = job
    arrays: dict[str, np.ndarray] = {}
    notes: list[dict[str, Any]] = []
    count: Counter[str] = Counter()
    for k, entry in enumerate(entries):
        digest = hashlib.sha256(f"{seed}:{entry['smiles']}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        note: dict[str, Any] = {**entry, "rejected": "", "discarded": {}, "kinds": []}
        notes.append(note)
        try:
            make = cluster_frames if entry["kind"] == "cluster" else molecule_frames
            numbers, kept = make(entry["smiles"], rng)
        except (Rejected, SCFError) as error:
            note["rejected"] = str(error) if isinstance(error, Rejected) else "SCF failure"
            count["molecules rejected: " + note["rejected"]] += 1
            continue
        note.update(discarded=dict(kept.discarded), kinds=kept.kinds)
        count.update({"frames": len(kept.kinds), "molecules": 1})
        arrays[f"{k}/numbers"] = numbers
        arrays[f"{k}/positions"] = np.array(kept.positions)
        arrays[f"{k}/energy"] = np.array(kept.energies)
        arrays[f"{k}/forces"] = np.array(kept.forces)
    temporary = path.with_name(path.name + f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, notes=np.array(json.dumps(notes)), **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)
    return path.name, len(entries), count


def label(out: Path, *, seed: int, scale: float, workers: int) -> None:
    shards = out / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    plan = json.loads(json.dumps(make_plan(seed=seed, scale=scale)))
    if (out / "plan.json").exists() and json.loads((out / "plan.json").read_text()) != plan:
        sys.exit(f"{out} holds a set made with other settings or versions: choose another --out, or empty it")
    write_atomically(out / "plan.json", json.dumps(plan, indent=1))
    entries = plan["entries"]
    chunks = [entries[i : i + SHARD] for i in range(0, len(entries), SHARD)]
    jobs = [(shards / f"{i:05d}.npz", seed, chunk) for i, chunk in enumerate(chunks)]
    todo = [job for job in jobs if not job[0].exists()]
    print(f"{len(entries)} molecules, {len(jobs)} shards, {len(todo)} to do", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    if workers > 1:
        with context.Pool(workers) as pool:
            report(pool.imap_unordered(label_shard, todo), len(todo))
    else:
        report(map(label_shard, todo), len(todo))


def report(results: Iterator[tuple[str, int, Counter[str]]], todo: int) -> None:
    """Count results and print progress to stderr."""
    begin, total = time.monotonic(), Counter[str]()
    for done, (name, _, count) in enumerate(results, start=1):
        total.update(count)
        spent = time.monotonic() - begin
        left = spent / done * (todo - done)
        line = f"{name} {done}/{todo} {spent:.0f} s, {left:.0f} s left, {dict(total)}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=("label", "pack"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor on the numbers of molecules and pairs"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--shards", type=int, help="pack only the first so many shards")
    arguments = parser.parse_args()
    if arguments.command == "label":
        label(arguments.out, seed=arguments.seed, scale=arguments.scale, workers=arguments.workers)
    else:
        from pack import pack

        pack(arguments.out, first=arguments.shards)


if __name__ == "__main__":
    main()
