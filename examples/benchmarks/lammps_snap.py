"""Is `pair_style mlip` as fast as `pair_style snap`, and how much closer to DFT?

Silicon at 600 K, one core, the same input; the two take turns. With `--data`, force errors of both on the
same test set (mlearn, `Si/test.json`), each computed by LAMMPS.

    python examples/benchmarks/lammps_snap.py --data MLEARN/Si/test.json
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lammps_runs import add_model_options, pair_style, run, snap
from measurement import common_facts, emit, note, quartiles


def force_errors(pairs: dict[str, str], data: Path) -> dict[str, Any]:
    """Root mean square and mean absolute error of the forces of each, meV/Å."""
    from mlip.datasets.read import read_frames
    from mlip.lammps_plugin.installation import program
    from mlip.lammps_plugin.parity import Case, ask_lammps

    frames = [frame for frame in read_frames(data) if frame.forces is not None]
    results = {}
    for name, pair in pairs.items():
        cases = [Case(name="", atoms=frame.to_atoms(), pair=tuple(pair.splitlines())) for frame in frames]
        with tempfile.TemporaryDirectory() as folder:
            answers = ask_lammps(cases, Path("none"), ["Si"], folder=Path(folder), lmp=[program("lmp", "")])
        errors = np.concatenate(
            [(got.forces - frame.forces).ravel() for got, frame in zip(answers, frames, strict=True)]
        )
        results[name] = {
            "forces_rmse_meV": round(1e3 * float(np.sqrt((errors**2).mean())), 2),
            "forces_mae_meV": round(1e3 * float(np.abs(errors).mean()), 2),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument(
        "--repeats", type=int, nargs=3, default=(4, 4, 4), metavar="N", help="cells of 8 atoms"
    )
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each run")
    parser.add_argument("--settle", type=int, default=20, help="steps before them")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--data", type=Path, help="test set with forces")
    arguments = parser.parse_args()
    common = common_facts("lammps_snap", arguments)
    with pair_style(arguments) as ours:
        pairs = {"mlip": ours, "snap": snap()}
        errors = force_errors(pairs, arguments.data) if arguments.data else {}
        runs: dict[str, list[Any]] = {name: [] for name in pairs}
        for turn in range(arguments.turns):
            for name, pair in pairs.items():
                note(f"turn {turn + 1}: {name}")
                options = {"steps": arguments.steps, "settle": arguments.settle}
                runs[name].append(run(pair, repeats=tuple(arguments.repeats), **options))
    for name, timed in runs.items():
        per_atom = quartiles([1e6 * t.seconds / t.steps / t.atoms for t in timed])
        line = {**common, "name": name, **errors.get(name, {}), "turns": len(timed), **timed[-1].record()}
        line["microseconds_per_atom_step"] = per_atom
        if name == "mlip":
            ratios = [s.seconds / m.seconds for m, s in zip(timed, runs["snap"], strict=True)]
            line["times_faster_than"] = {"snap": quartiles(ratios)}
        emit(line)


if __name__ == "__main__":
    main()
