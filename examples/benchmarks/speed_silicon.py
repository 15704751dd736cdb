"""How fast are energy, forces and stress of a rattled crystal of 512 silicon atoms?

Against mace-torch (64x0e, +64x1o, +64x2e) and NequIP (64 channels, 3 layers, l <= 1 eager and compiled by
AOTInductor, l <= 2), each given a Python that has it. The time is that of the model and its derivatives:
neighbour lists are made beforehand, for all. `--with-neighbors` adds ours with the list made for each call.

    python examples/benchmarks/speed_silicon.py --config examples/acac/train.yaml small \
        --peer-python MACE_ENV/bin/python NEQUIP_ENV/bin/python
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from measurement import (
    Contender,
    Worker,
    add_options,
    common_facts,
    find_peers,
    note,
    ours,
    report,
    take_turns,
)
from structures import save, silicon

MACE = {
    "64x0e": "64x0e",
    "64x0e+64x1o": "64x0e + 64x1o",
    "64x0e+64x1o+64x2e": "64x0e + 64x1o + 64x2e",
}
NEQUIP = {"l1": (1, False), "l1-compiled": (1, True), "l2": (2, False)}


def main() -> None:
    arguments = _arguments()
    common = {**common_facts("speed_silicon", arguments), "neighbor_lists": "not timed"}
    with tempfile.TemporaryDirectory() as folder:
        repeats = (arguments.repeats,) * 3
        options: dict[str, Any] = {
            "structures": save(Path(folder) / "silicon.xyz", silicon(repeats)),
            "cutoff": arguments.cutoff,
            "dtype": arguments.dtype,
        }
        contenders = [ours(model, "energy", **options) for model in arguments.config]
        if arguments.with_neighbors:
            contenders += [_with_neighbors(contender) for contender in list(contenders)]
        contenders += _peers(arguments, options, Path(folder))
        results = take_turns(
            contenders, threads=arguments.threads, turns=arguments.turns, runs=arguments.runs
        )
    edges = {result.facts["edges"] for result in results}
    if len(edges) > 1:
        sys.exit(f"the contenders have different numbers of edges: {sorted(edges)}")
    for result in results:
        if result.contender.options.get("with_neighbors"):
            result.facts["neighbor_lists"] = "timed"
    report(common, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, turns=4, runs=5)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--repeats", type=int, default=4, help="cubic cells of 8 atoms along each axis")
    parser.add_argument("--with-neighbors", action="store_true", help="also time ours with neighbour lists")
    parser.add_argument("--mace", nargs="*", choices=[*MACE], default=[*MACE], help="models of mace-torch")
    parser.add_argument("--nequip", nargs="*", choices=[*NEQUIP], default=[*NEQUIP], help="models of NequIP")
    parser.add_argument(
        "--nequip-parity", action="store_true", help="NequIP with both parities of each degree"
    )
    parser.add_argument(
        "--mace-reduced-cg",
        action="store_true",
        help="mace-torch with use_reduced_cg, which is off by default",
    )
    return parser.parse_args()


def _with_neighbors(contender: Contender) -> Contender:
    options = {**contender.options, "with_neighbors": True}
    name = f"{contender.name}, with neighbour lists"
    return Contender(name, contender.package, contender.python, contender.task, options)


def _peers(arguments: argparse.Namespace, options: dict[str, Any], folder: Path) -> list[Contender]:
    pythons = find_peers(arguments.peer_python)
    contenders = []
    if "mace" in pythons:
        for name in arguments.mace:
            own = {"hidden_irreps": MACE[name], "reduced_cg": arguments.mace_reduced_cg}
            contenders.append(
                Contender(f"mace {name}", "mace", pythons["mace"], "energy", {**options, **own})
            )
    if "nequip" in pythons:
        for name in arguments.nequip:
            degree, compiled = NEQUIP[name]
            own = {"l_max": degree, "parity": arguments.nequip_parity}
            contender = Contender(f"nequip {name}", "nequip", pythons["nequip"], "energy", {**options, **own})
            contenders.append(
                _compiled(contender, folder, threads=arguments.threads) if compiled else contender
            )
    return contenders


def _compiled(contender: Contender, folder: Path, *, threads: int) -> Contender:
    """The same model as a compiled package, which a process of its own makes first."""
    package = str(folder / f"{contender.name.replace(' ', '-')}.nequip.pt2")
    options = {**contender.options, "package": package}
    note(f"compiling {contender.name}")
    maker = Contender(contender.name, contender.package, contender.python, "compile", options)
    with Worker(maker, threads=threads) as worker:
        worker.prepare()
    return Contender(contender.name, contender.package, contender.python, "energy-compiled", options)


if __name__ == "__main__":
    main()
