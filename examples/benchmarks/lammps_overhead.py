"""What does the pair style cost beyond the model, and the model beyond its kernels?

Silicon at 600 K on one core. `pair` is all of the pair style, `model` the exported package in it, `kernels`
the compiled kernels in that; what a package does besides them is matrix products, which are work as well,
and dispatch and memory, which are not.

    python examples/benchmarks/lammps_overhead.py
"""

from __future__ import annotations

import argparse

from lammps_runs import add_model_options, pair_style, run
from measurement import common_facts, emit, note, quartiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument(
        "--cells", type=int, nargs="+", default=(1, 2, 4, 8), help="cubes of so many cells of 8 atoms"
    )
    parser.add_argument("--atom-steps", type=int, default=50_000, help="timed steps times atoms")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    common = common_facts("lammps_overhead", arguments)
    with pair_style(arguments) as ours:
        for cells in arguments.cells:
            steps = max(5, arguments.atom_steps // (8 * cells**3))
            timed = []
            for turn in range(arguments.turns):
                note(f"{8 * cells**3} atoms, turn {turn + 1}")
                timed.append(run(ours, repeats=(cells,) * 3, steps=steps, settle=10))
            parts = [t.sections for t in timed]
            emit(
                {
                    **common,
                    "name": f"mlip, {8 * cells**3} atoms",
                    "turns": arguments.turns,
                    **timed[-1].record(),
                    "pair_over_model": quartiles([s["pair"] / s["model"] - 1 for s in parts]),
                    "model_over_kernels": quartiles([s["model"] / s["kernels"] - 1 for s in parts]),
                    "step_over_pair": quartiles(
                        [t.seconds / s["pair"] - 1 for t, s in zip(timed, parts, strict=True)]
                    ),
                }
            )


if __name__ == "__main__":
    main()
