"""How long do energy and forces of a molecule of 15 atoms take through the ASE calculator?

Atoms are moved a little before each call (0.02 Å, outside the clock), as in dynamics; all that a calculator
does is timed, neighbour lists included. In float64 and float32, against `MACECalculator`.

    python examples/benchmarks/speed_molecule.py --config default examples/acac/train.yaml \
        --peer-python MACE_ENV/bin/python
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measurement import Contender, add_options, common_facts, find_peers, ours, report, take_turns
from structures import molecule, save


def main() -> None:
    arguments = _arguments()
    common = common_facts("speed_molecule", arguments)
    del common["dtype"]
    contenders: list[Contender] = []
    with tempfile.TemporaryDirectory() as folder:
        structures = save(Path(folder) / "molecule.xyz", molecule("acetylacetone"))
        python = find_peers(arguments.peer_python).get("mace")
        for dtype in arguments.dtype:
            options: dict[str, Any] = {
                "structures": structures,
                "cutoff": arguments.cutoff,
                "dtype": dtype,
                "displacement": 0.02,
            }
            contenders += [ours(model, "calculator", **options) for model in arguments.config]
            if python is not None:
                own = {**options, "hidden_irreps": arguments.mace}
                name = f"mace {arguments.mace.replace(' ', '')}"
                contenders.append(Contender(name, "mace", python, "calculator", own))
        results = take_turns(
            contenders, threads=arguments.threads, turns=arguments.turns, runs=arguments.runs, warmup=10
        )
    for result in results:
        result.facts["dtype"] = result.contender.options["dtype"]
    report(common, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, turns=6, runs=20)
    parser.add_argument("--dtype", nargs="+", choices=("float64", "float32"), default=["float64", "float32"])
    parser.add_argument(
        "--mace", default="64x0e + 64x1o", metavar="IRREPS", help="hidden irreps of mace-torch"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
