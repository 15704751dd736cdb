"""A run: a plan of sources, and files of labelled frames that appear one by one, each complete.

A folder holds `plan.json` (sources, seed, versions) and `shards/00000.npz`, ... A shard appears under its
name only when it is whole, so a run may be stopped at any moment and repeated: what is there is not made
again. The numbers of a frame depend on seed, source and versions alone, not on processes or order.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.generation.force_field import Rejected
from mlip.datasets.generation.labelling import LabelError, MakeLabeller
from mlip.datasets.generation.recipes import Amounts, Source, make_frames
from mlip.errors import InputError

SHARD = 20
"""Sources of a shard."""


@dataclass(frozen=True)
class Progress:
    """After one more shard: shards done and in all, and what this call has made and dropped so far."""

    done: int
    total: int
    counts: Counter[str]


@dataclass(frozen=True)
class _Job:
    path: Path
    seed: int
    sources: list[dict[str, Any]]
    make_labeller: MakeLabeller


def versions() -> dict[str, str]:
    """Of everything that decides the numbers; `generation` is a fingerprint of the code in this folder."""
    import mlip

    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    out = {"polyad": str(mlip.__version__), "generation": hashlib.sha256(code).hexdigest()[:12]}
    for name in ("tblite", "rdkit", "ase", "numpy", "scipy"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def make_plan(
    sources: Sequence[Source], *, seed: int, level_of_theory: str, licence: str = "", about: str = ""
) -> dict[str, Any]:
    """What a run is to make, as JSON holds it. Sources are shuffled: the first shards are a random subset.

    Raises:
        InputError: There are no sources, or two of one name.
    """
    if not sources:
        raise InputError("there are no molecules to make frames of")
    order = _shuffled(sources, seed)
    _require_once(order)
    return {
        "format": "polyad-generation",
        "version": 1,
        "about": about,
        "level_of_theory": level_of_theory,
        "licence": licence,
        "seed": seed,
        "versions": versions(),
        "sources": order,
        "waves": [len(order)],
    }


def extend_plan(folder: Path, sources: Sequence[Source]) -> None:
    """Add a wave of sources to the plan of a folder: shards that are there stay, new ones come after them.

    Raises:
        InputError: The folder holds no plan, or a source of one of the names.
    """
    plan = read_plan(folder)
    plan["waves"] = [*waves(plan), len(sources)]
    plan["sources"] += _shuffled(sources, plan["seed"])
    _require_once(plan["sources"])
    _write(folder, plan)


def _shuffled(sources: Sequence[Source], seed: int) -> list[dict[str, Any]]:
    order = list(sources)
    random.Random(seed).shuffle(order)
    return [asdict(s) for s in order]


def _require_once(sources: Sequence[dict[str, Any]]) -> None:
    twice = [name for name, k in Counter(s["name"] for s in sources).items() if k > 1]
    if twice:
        raise InputError(f"{twice[0]!r} is there twice: every molecule may be given once")


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Begin a folder, or find the same plan in it.

    Raises:
        InputError: The folder holds another plan.
    """
    plan = json.loads(json.dumps(plan))
    path = folder / "plan.json"
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = _changed(there, plan)
        if changed:
            raise InputError(
                f"{folder}: holds a run with other {', '.join(changed)}: choose another folder, or empty this"
            )
        return
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    _write(folder, plan)


def _write(folder: Path, plan: dict[str, Any]) -> None:
    path = folder / "plan.json"
    temporary = path.with_name("plan.json.tmp")
    temporary.write_text(json.dumps(plan, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def _changed(there: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """What is not the same in two plans; of the sources, in words of whoever gave them."""
    changed = {key for key in plan.keys() - {"waves"} if plan[key] != there.get(key)}
    if "sources" in changed:
        before, now = ({s["name"]: {**s, **s["amounts"]} for s in p["sources"]} for p in (there, plan))
        settings = {
            key
            for name in now.keys() & before
            for key in now[name]
            if now[name][key] != before[name].get(key)
        }
        molecules = {"molecules"} if now.keys() != before.keys() else set[str]()
        changed = (changed | settings | molecules) - {"sources", "amounts"}
    return sorted(changed)


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan of a folder.

    Raises:
        InputError: There is none.
    """
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: there is no plan.json: it is not the folder of a run") from None
    if plan.get("format") != "polyad-generation" or plan.get("version") != 1:
        raise InputError(f"{folder / 'plan.json'}: is not a plan of this version of polyad")
    return plan


def num_shards(plan: dict[str, Any]) -> int:
    """How many shards the plan makes."""
    return len(_chunks(plan))


def waves(plan: dict[str, Any]) -> list[int]:
    """Numbers of sources that were planned together; older plans have one wave and do not say so."""
    return list(plan.get("waves", [len(plan["sources"])]))


def _chunks(plan: dict[str, Any]) -> list[list[dict[str, Any]]]:
    chunks, sources = [], iter(plan["sources"])
    for wave in waves(plan):
        left = list(islice(sources, wave))
        chunks += [left[k : k + SHARD] for k in range(0, wave, SHARD)]
    return chunks


def run(
    folder: Path,
    make_labeller: MakeLabeller,
    *,
    workers: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> bool:
    """Make the shards of the folder's plan that are not there yet; True when all are there.

    Args:
        folder: Holds a plan.
        make_labeller: Of one set of atoms; pickled for the processes.
        workers: Processes, of one thread each; 0 for this process, with the threads that it has.
        on_progress: Called after every shard.
        should_stop: Asked after every shard.

    Raises:
        InputError: A SMILES cannot be read, or a package is missing.
    """
    plan = read_plan(folder)
    chunks = _chunks(plan)
    jobs = [
        _Job(folder / "shards" / f"{k:05d}.npz", plan["seed"], chunk, make_labeller)
        for k, chunk in enumerate(chunks)
    ]
    for stale in (folder / "shards").glob("*.tmp"):
        stale.unlink()
    todo = [job for job in jobs if not job.path.exists()]
    counts: Counter[str] = Counter()

    def finish(results: Iterator[Counter[str]]) -> bool:
        for done, count in enumerate(results, start=len(jobs) - len(todo) + 1):
            counts.update(count)
            if on_progress is not None:
                on_progress(Progress(done, len(jobs), Counter(counts)))
            if should_stop is not None and should_stop():
                return done == len(jobs)
        return True

    if workers == 0:
        return finish(map(_make_shard, todo))
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_prepare_worker) as pool:
        return finish(pool.imap_unordered(_make_shard, todo))


def _prepare_worker() -> None:
    """One thread: molecules are too small for more. Ctrl-C reaches all but is for the first process alone."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when tblite is loaded, later
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make_shard(job: _Job) -> Counter[str]:
    """Make one shard, write it whole, and count what is in it."""
    arrays: dict[str, np.ndarray] = {}
    notes: list[dict[str, Any]] = []
    count: Counter[str] = Counter()
    for k, entry in enumerate(job.sources):
        source = Source(**{**entry, "amounts": Amounts(**entry["amounts"])})
        note: dict[str, Any] = {"name": source.name, "group": source.group}
        notes.append(note)
        try:
            particles, made = make_frames(source, job.make_labeller, seed=job.seed)
        except (Rejected, LabelError) as error:
            note["rejected"] = str(error)
            count[f"rejected: {error}"] += 1
            continue
        note.update(
            smiles=source.smiles,
            charge=particles.charge,
            spin=particles.spin,
            discarded=dict(made.discarded),
            frames=[asdict(n) for n in made.notes],
        )
        count.update(molecules=1, frames=len(made.frames), hessians=len(made.hessians))
        if not made.frames:
            continue
        arrays[f"{k}/numbers"] = particles.numbers
        arrays[f"{k}/positions"] = np.array([f.positions for f in made.frames])
        arrays[f"{k}/energy"] = np.array([f.energy for f in made.frames])
        arrays[f"{k}/forces"] = np.array([f.forces for f in made.frames])
        if made.hessians:
            arrays[f"{k}/hessian_of"] = np.array(list(made.hessians))
            arrays[f"{k}/hessian"] = np.array(list(made.hessians.values()))
    temporary = job.path.with_name(f"{job.path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, notes=np.array(json.dumps(notes)), **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, job.path)
    return count
