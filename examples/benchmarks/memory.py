"""How much memory do energy and forces of 100,000 silicon atoms take?

Peak resident memory of a process that reads the structure, makes its neighbour list and evaluates the model:
everything from the interpreter on. One process per model.

    python examples/benchmarks/memory.py --config examples/acac/train.yaml small
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from measurement import MODELS_HELP, Worker, common_facts, emit, note, ours
from structures import save, silicon


def main() -> None:
    arguments = _arguments()
    common = common_facts("memory", arguments)
    with tempfile.TemporaryDirectory() as folder:
        structures = save(Path(folder) / "silicon.xyz", silicon(tuple(arguments.repeats)))
        for model in arguments.config:
            contender = ours(
                model,
                "energy",
                structures=structures,
                cutoff=arguments.cutoff,
                dtype=arguments.dtype,
                stress=arguments.stress,
            )
            note(f"measuring {contender.name}")
            with Worker(contender, threads=arguments.threads) as worker:
                facts = worker.prepare()
                reply = worker.ask(do="run", settle=0, count=arguments.runs)
            emit(
                {
                    **common,
                    "name": contender.name,
                    **facts,
                    "runs": arguments.runs,
                    "seconds_per_run": [round(s, 3) for s in reply["seconds"]],
                    "peak_memory_mb": reply["peak_memory_mb"],
                    "peak_memory_gb": round(reply["peak_memory_mb"] / 1e3, 2),
                    "bytes_per_atom": round(1e6 * reply["peak_memory_mb"] / facts["atoms"]),
                }
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config",
        nargs="+",
        default=["small"],
        metavar="MODEL",
        help=MODELS_HELP,
    )
    parser.add_argument(
        "--repeats",
        type=int,
        nargs=3,
        default=(25, 25, 20),
        metavar="N",
        help="cubic cells of 8 atoms along each axis; 25 25 20, 100,000 atoms, by default",
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--cutoff", type=float, default=5.0, help="Å")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2, help="evaluations; memory may grow in the second")
    parser.add_argument("--stress", action="store_true", help="stress too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
