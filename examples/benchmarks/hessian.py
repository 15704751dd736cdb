"""What does a direct Hessian cost, against energy and forces, and against one by differentiation?

One batch of 32 distorted molecules of 15 atoms (acetylacetone), neighbour lists not timed; the pairs of the
head are. A model without a head for Hessians gets an untrained one: weights do not change the time. Each line
has `times_energy_and_forces`, the ratio of the medians (quartiles over the rounds), and that of the direct
Hessian also how many times faster it is than the one by differentiation.

    python examples/benchmarks/hessian.py --config default
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from measurement import add_options, common_facts, emit, ours, take_turns
from structures import labelled, molecule, save

QUANTITIES = ("energy and forces", "direct", "autograd")


def main() -> None:
    arguments = _arguments()
    common = common_facts("hessian", arguments)
    with tempfile.TemporaryDirectory() as folder:
        structures = save(
            Path(folder) / "molecules.xyz", labelled(molecule("acetylacetone"), arguments.molecules)
        )
        options = {"structures": structures, "cutoff": arguments.cutoff, "dtype": arguments.dtype}
        contenders = [
            ours(model, "hessian", **options, quantity=quantity)
            for model in arguments.config
            for quantity in QUANTITIES
        ]
        results = take_turns(
            contenders, threads=arguments.threads, turns=arguments.turns, runs=arguments.runs, warmup=3
        )
    for first in range(0, len(results), len(QUANTITIES)):
        plain, direct, autograd = results[first : first + len(QUANTITIES)]
        for quantity, result in zip(QUANTITIES, (plain, direct, autograd), strict=True):
            line = {**common, **result.record(), "quantity": quantity}
            if result is not plain:
                line["times_energy_and_forces"] = plain.times_faster_than(result)
            if result is direct:
                line["times_faster_than_autograd"] = direct.times_faster_than(autograd)
            emit(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, turns=5, runs=5)
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float32")
    parser.add_argument("--molecules", type=int, default=32)
    return parser.parse_args()


if __name__ == "__main__":
    main()
