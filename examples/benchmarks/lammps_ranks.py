"""How well do two processes share the work, and how much memory do they take?

Silicon at 600 K on one and on two processes of one thread each, in turn. Efficiency is the time of one over
that of N, divided by N. Nothing else may run on the machine.

    python examples/benchmarks/lammps_ranks.py                                            # 4,000 atoms
    python examples/benchmarks/lammps_ranks.py --repeats 50 25 25 --ranks 2 --steps 5 --turns 1     # 250,000
"""

from __future__ import annotations

import argparse
from typing import Any

from lammps_runs import add_model_options, pair_style, run
from measurement import common_facts, emit, note, quartiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument(
        "--repeats", type=int, nargs=3, default=(10, 10, 5), metavar="N", help="cells of 8 atoms"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each run")
    parser.add_argument("--settle", type=int, default=5, help="steps before them")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    common = common_facts("lammps_ranks", arguments)
    runs: dict[int, list[Any]] = {ranks: [] for ranks in arguments.ranks}
    with pair_style(arguments) as ours:
        for turn in range(arguments.turns):
            for ranks in arguments.ranks:
                note(f"turn {turn + 1}: {ranks} process(es)")
                options = {"steps": arguments.steps, "settle": arguments.settle, "ranks": ranks}
                runs[ranks].append(run(ours, repeats=tuple(arguments.repeats), **options))
    for ranks, timed in runs.items():
        line = {**common, "name": f"mlip, {ranks} rank(s)", "turns": len(timed), **timed[-1].record()}
        line["milliseconds_per_step"] = quartiles([1e3 * t.seconds / t.steps for t in timed])
        line["peak_memory_gb_together"] = round(sum(timed[-1].peak_memory_mb) / 1e3, 2)
        if 1 in runs and ranks > 1:
            pairs = zip(runs[1], timed, strict=True)
            line["efficiency"] = quartiles([one.seconds / many.seconds / ranks for one, many in pairs])
        emit(line)


if __name__ == "__main__":
    main()
