"""How long does `mlip relax` of a molecule of 20 atoms take, from start to finish?

Wall time of the command in a process of its own: interpreter, imports, model, self-check of the kernels,
relaxation, files. The first run, with files not yet in the system's cache, is given apart.

    python examples/benchmarks/relax_cli.py --model default
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measurement import common_facts, emit, quartiles
from structures import FOLDER

PROGRAM = "from mlip.cli import main; main()"


def main() -> None:
    arguments = _arguments()
    common = common_facts("relax_cli", arguments)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        structure = Path(folder) / arguments.structure.name
        shutil.copyfile(arguments.structure, structure)
        for _ in range(arguments.runs + 1):
            elapsed, answer = _relax(structure, arguments)
            seconds.append(elapsed)
    (relaxed,) = answer["structures"]
    emit(
        {
            **common,
            "command": f"mlip relax {structure.name} --model {arguments.model}",
            "dtype": answer["dtype"],
            "threads": arguments.threads,
            "versions": {"python": sys.version.split()[0], "polyad": answer["mlip_version"]},
            "atoms": relaxed["atoms"],
            "formula": relaxed["formula"],
            "converged": relaxed["converged"],
            "steps": relaxed["steps"],
            "seconds_relaxing": relaxed["seconds"],
            "runs": arguments.runs,
            "seconds": quartiles(seconds[1:]),
            "seconds_first": round(seconds[0], 3),
            "peak_memory_mb": _peak_memory_of_children(),
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="bundled model or checkpoint")
    parser.add_argument("--structure", type=Path, default=FOLDER / "paracetamol.xyz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20, help="after a first one")
    return parser.parse_args()


def _relax(structure: Path, arguments: argparse.Namespace) -> tuple[float, dict[str, Any]]:
    """Seconds, and what the command said; ends the program where it failed."""
    result = structure.with_name("relaxed.xyz")
    result.unlink(missing_ok=True)
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).is_file() else arguments.model
    command = [sys.executable, "-c", PROGRAM, "relax", str(structure), "--model", model]
    command += ["--out", str(result), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=structure.parent)
    elapsed = time.perf_counter() - start
    if done.returncode not in (0, 3):
        sys.exit(f"mlip relax ended with exit code {done.returncode}")
    return elapsed, json.loads(done.stdout)


def _peak_memory_of_children() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
