"""Fit the polyadic decompositions of the angular products that ship with the package.

Writes the file that `mlip.o3.factors` reads. Every entry is fitted anew from random starts with a fixed seed,
so the numbers can be reproduced; the whole set takes minutes on one core, most of it for degree 4.

    python examples/fit_cp_factors.py --out factors.safetensors
    python examples/fit_cp_factors.py --only cp/3,3,3 --out /tmp/one.safetensors
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mlip.o3.decompositions import target_tensor
from mlip.o3.fit import fit_polyadic

# Ascending degrees and rank. "cp" is the Gaunt tensor, whose degrees may be taken in any order; products with
# a degree 0 or with one degree above the sum of the others follow from these. Ranks are upper bounds: one
# less was tried without success for ten seconds or more each (4,4,4: nothing exact found up to 66).
PLAN = {
    "cp/1,1,1": 6,
    "cp/1,1,2": 9,
    "cp/1,2,2": 12,
    "cp/1,2,3": 16,
    "cp/1,3,3": 21,
    "cp/1,3,4": 25,
    "cp/1,4,4": 31,
    "cp/2,2,2": 18,
    "cp/2,2,3": 21,
    "cp/2,2,4": 25,
    "cp/2,3,3": 28,
    "cp/2,3,4": 31,
    "cp/2,4,4": 42,
    "cp/3,3,3": 32,
    "cp/3,3,4": 46,
    "cp/3,4,4": 49,
    "cp-all/1,1,1": 8,
    "cp-all/2,2,2": 30,
    "cp-all/3,3,3": 98,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file to write; entries of others are kept")
    parser.add_argument(
        "--only", nargs="*", default=list(PLAN), help="entries such as cp/3,3,3 (default: all)"
    )
    parser.add_argument("--rank", type=int, help="another rank than the planned one")
    parser.add_argument("--starts", type=int, default=20, help="random starts per entry at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    tensors = dict(load_file(arguments.out)) if arguments.out.exists() else {}
    failed = []
    for entry in arguments.only:
        kind, degrees = entry.split("/")
        target = target_tensor(kind, *map(int, degrees.split(","))).numpy()
        rank = arguments.rank or PLAN[entry]
        fit = fit_polyadic(
            target,
            rank,
            starts=arguments.starts,
            seed=arguments.seed,
            report=lambda line, entry=entry: print(f"{entry} {line}", file=sys.stderr, flush=True),
        )
        if fit.error > 1e-13:
            failed.append(entry)
            continue
        for operand, matrix in enumerate(fit.matrices):
            tensors[f"{entry}/{operand}"] = np.ascontiguousarray(matrix)
        temporary = arguments.out.with_suffix(".tmp")
        save_file(tensors, temporary)
        os.replace(temporary, arguments.out)
        print(f"{entry} rank {rank} error {fit.error:.1e} largest component {fit.largest:.2f}", flush=True)
    if failed:
        print(f"no exact fit for {', '.join(failed)}: not written", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
