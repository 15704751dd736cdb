"""How long does one training step take?

Forward, loss on energies and forces, backward, clipping, AMSGrad, moving average of the weights: ours is the
package's own step, mace-torch's its `take_step`, on the same batch, made beforehand. 5 molecules of
acetylacetone, or with `--system silicon` 4 rattled cells of 8 atoms.

    python examples/benchmarks/speed_training_step.py --config examples/acac/train.yaml \
        --peer-python MACE_ENV/bin/python
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measurement import Contender, add_options, common_facts, find_peers, ours, report, take_turns
from structures import labelled, molecule, save, silicon

BATCH = {"acetylacetone": 5, "silicon": 4}


def main() -> None:
    arguments = _arguments()
    common = {**common_facts("speed_training_step", arguments), "system": arguments.system}
    size = arguments.batch or BATCH[arguments.system]
    atoms = silicon((1, 1, 1), rattle=0.0) if arguments.system == "silicon" else molecule(arguments.system)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "structures": save(Path(folder) / "batch.xyz", labelled(atoms, size)),
            "cutoff": arguments.cutoff,
            "dtype": arguments.dtype,
        }
        contenders = [ours(model, "training", **options) for model in arguments.config]
        python = find_peers(arguments.peer_python).get("mace")
        if python is not None:
            own = {**options, "hidden_irreps": arguments.mace}
            contenders.append(
                Contender(f"mace {arguments.mace.replace(' ', '')}", "mace", python, "training", own)
            )
        results = take_turns(
            contenders, threads=arguments.threads, turns=arguments.turns, runs=arguments.runs, warmup=5
        )
    report(common, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, turns=6, runs=10)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--system", choices=[*BATCH], default="acetylacetone")
    parser.add_argument("--batch", type=int, help="structures; 5 molecules or 4 cells by default")
    parser.add_argument(
        "--mace", default="64x0e + 64x1o", metavar="IRREPS", help="hidden irreps of mace-torch"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
