"""How many frames per second can be read at random from a file?

`H5Dataset`, against an ASE database (SQLite) of such frames: molecules of 20 atoms with energy and forces,
in trajectories of 50 steps.
Frames are visited in random order, all of them in each run; the files are in the system's cache. One thread.

    python examples/benchmarks/data_access.py --frames 20000
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ase
import ase.db
import h5py
import numpy as np
from measurement import common_facts, emit, note, quartiles
from structures import molecule

import mlip
from mlip.datasets import Frame, H5Dataset, H5Writer


def main() -> None:
    arguments = _arguments()
    common = {
        **common_facts("data_access", arguments),
        "dtype": "float64",
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "polyad": mlip.__version__,
            "h5py": h5py.__version__,
            "ase": ase.__version__,
        },
    }
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        frames = _frames(arguments.frames)
        note("writing")
        with H5Writer(Path(folder) / "frames.h5") as writer:
            writer.write_many(frames)
        readers: dict[str, Callable[[Sequence[int]], float]] = {"H5Dataset": _h5(Path(folder) / "frames.h5")}
        count = min(arguments.frames, arguments.database_frames)
        if count:
            readers["ase.db"] = _database(Path(folder) / "frames.db", frames[:count])
        results = _take_turns(readers, {"H5Dataset": arguments.frames, "ase.db": count}, arguments.runs)
    for name, rates in results.items():
        line = {**common, "name": name, "frames": arguments.frames if name == "H5Dataset" else count}
        line |= {"atoms": len(frames[0]), "runs": arguments.runs, "frames_per_second": quartiles(rates)}
        line["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
        if name == "H5Dataset" and count:
            quotient = float(np.median(rates) / np.median(results["ase.db"]))
            line["times_faster_than"] = {"ase.db": round(quotient, 1)}
        emit(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--database-frames", type=int, default=2_000, help="in the ASE database; 0 for none")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--folder", help="where the files are made; the temporary folder by default")
    return parser.parse_args()


def _frames(count: int) -> list[Frame]:
    atoms, random = molecule("paracetamol"), np.random.default_rng(0)
    shape = atoms.positions.shape
    return [
        Frame(
            positions=atoms.positions + random.normal(scale=0.05, size=shape),
            atomic_numbers=atoms.numbers,
            energy=float(random.normal()),
            forces=random.normal(size=shape),
            molecule=f"molecule {i // 50}",
            trajectory=f"molecule {i // 50}/relaxation",
            step=i % 50,
        )
        for i in range(count)
    ]


def _h5(path: Path) -> Callable[[Sequence[int]], float]:
    data = H5Dataset(path)

    def visit(order: Sequence[int]) -> float:
        total = 0.0
        for i in order:
            frame = data[i]
            total += _touch(frame.positions, frame.forces)
        return total

    return visit


def _database(path: Path, frames: Sequence[Frame]) -> Callable[[Sequence[int]], float]:
    with ase.db.connect(path) as database:
        for frame in frames:
            database.write(frame.to_atoms())
    opened = ase.db.connect(path)

    def visit(order: Sequence[int]) -> float:
        total = 0.0
        for i in order:
            atoms = opened.get_atoms(i + 1)
            total += _touch(atoms.positions, atoms.calc.results["forces"])
        return total

    return visit


def _touch(positions: np.ndarray, forces: np.ndarray | None) -> float:
    """Read every number, so that a lazy reader has to fetch them."""
    return float(positions.sum()) + (0.0 if forces is None else float(forces.sum()))


def _take_turns(
    readers: Mapping[str, Callable[[Sequence[int]], float]], counts: Mapping[str, int], runs: int
) -> dict[str, list[float]]:
    """Frames per second of each reader in each run, the first run, which warms up, left out."""
    rates: dict[str, list[float]] = {name: [] for name in readers}
    random = np.random.default_rng(1)
    for run in range(runs + 1):
        note(f"run {run} of {runs}")
        for name, visit in readers.items():
            order = random.permutation(counts[name]).tolist()
            start = time.perf_counter()
            visit(order)
            elapsed = time.perf_counter() - start
            if run:
                rates[name].append(len(order) / elapsed)
    return rates


if __name__ == "__main__":
    main()
