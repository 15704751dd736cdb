"""How fast are many molecules relaxed, against one at a time?

Contenders, each a process of its own, in turn on the same molecules (conformers of
`structures/molecules.txt`, as RDKit embeds them and not relaxed; those with elements that the model does not
know are left out):

* `batch`: `relax_many` with a `BatchCalculator`, on all threads;
* `ase`: ASE's BFGS, one molecule after another, with an `MLIPCalculator` of the same model, on all threads;
* `gfn2`: ASE's BFGS with GFN2-xTB (tblite), one molecule after another in each of as many processes as there
  are threads, each with one thread.

    python examples/benchmarks/relax_batch.py --molecules 1000 --model default

`same_minimum` compares `batch` with `ase`: the share of molecules whose energies differ by less than 5 meV,
and of those where `batch` is lower or higher by more. The peers relax `--peer-molecules` of the molecules;
times are per molecule.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from measurement import common_facts, emit, note
from structures import FOLDER

SMILES = FOLDER / "molecules.txt"
CONTENDERS = ("batch", "ase", "gfn2")
SAME = 0.005
"""eV."""


def main() -> None:
    arguments = _arguments()
    if arguments.worker is not None:
        print(json.dumps(_worker(arguments)))
        return
    common = common_facts("relax_batch", arguments)
    molecules = _molecules(arguments.molecules, arguments.model, arguments.seed)
    arguments.file = Path(arguments.folder) / "relax_batch.xyz"
    write(arguments.file, molecules, format="extxyz")
    sizes = [len(atoms) for atoms in molecules]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.contenders}
    for turn in range(arguments.turns):
        for name in arguments.contenders:
            note(f"round {turn + 1} of {arguments.turns}: {name}")
            results[name].append(_run(name, arguments))
    per_molecule = {
        name: float(np.median([turn["seconds"] / len(turn["energies"]) for turn in turns]))
        for name, turns in results.items()
    }
    for name, turns in results.items():
        last = turns[-1]
        line = {
            **common,
            "contender": name,
            "model": "GFN2-xTB" if name == "gfn2" else arguments.model,
            "dtype": None if name == "gfn2" else arguments.dtype,
            "threads": arguments.threads,
            "fmax": arguments.fmax,
            "molecules": len(last["energies"]),
            "mean_atoms": round(float(np.mean(sizes[: len(last["energies"])])), 1),
            "converged": int(sum(last["converged"])),
            "steps_mean": round(float(np.mean(last["steps"])), 2),
            "seconds_per_molecule": round(per_molecule[name], 5),
            "turns": arguments.turns,
        }
        if name == "batch":
            others = {other: per_molecule[other] for other in results if other != "batch"}
            line["times_faster_than"] = {
                other: round(value / per_molecule[name], 2) for other, value in others.items()
            }
            if "ase" in results:
                line["same_minimum"] = _agreement(last, results["ase"][-1])
        emit(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="bundled model or checkpoint")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--molecules", type=int, default=1000)
    parser.add_argument("--peer-molecules", type=int, default=100, help="of these, relaxed by the peers")
    parser.add_argument("--fmax", type=float, default=0.02, help="eV/Å")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the conformers")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--folder", default="/tmp", help="for the molecules, which all contenders read")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _molecules(count: int, model: str, seed: int) -> list[Atoms]:
    """Conformers, several of each molecule where more are asked for than there are molecules."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import AllChem

    from mlip.checkpoint import read_header

    RDLogger.DisableLog("rdApp.*")
    species = set(read_header(model)["species"])
    lines = SMILES.read_text().splitlines()
    smiles = [text for line in lines if not line.startswith("#") for text in line.split()]
    fitting = [Chem.AddHs(Chem.MolFromSmiles(text)) for text in smiles]
    fitting = [one for one in fitting if {atom.GetAtomicNum() for atom in one.GetAtoms()} <= species]
    if not fitting:
        sys.exit(f"{model} knows the elements of no molecule")
    found: list[Atoms] = []
    attempt = 0
    while len(found) < count:
        molecule = fitting[attempt % len(fitting)]
        embedded = AllChem.EmbedMolecule(molecule, randomSeed=seed + attempt // len(fitting) + 1)
        if embedded == 0:
            symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
            found.append(Atoms(symbols, molecule.GetConformer().GetPositions()))
        attempt += 1
    return found


def _run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One turn of a contender in a process of its own."""
    threads = "1" if name == "gfn2" else str(arguments.threads)
    command = [sys.executable, __file__, "--worker", name, "--file", str(arguments.file)]
    for option in ("model", "dtype", "fmax", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    command += ["--molecules", str(arguments.molecules), "--peer-molecules", str(arguments.peer_molecules)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{name} failed")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _worker(arguments: argparse.Namespace) -> dict[str, Any]:
    molecules = read(arguments.file, index=":")
    if arguments.worker == "batch":
        return _batch(molecules, arguments)
    molecules = molecules[: arguments.peer_molecules]
    if arguments.worker == "ase":
        return _ase(molecules, arguments)
    return _gfn2(molecules, arguments)


def _batch(molecules: list[Atoms], arguments: argparse.Namespace) -> dict[str, Any]:
    from mlip.calculators import BatchCalculator
    from mlip.search.batch_relax import relax_many

    calculator = BatchCalculator(arguments.model, dtype=arguments.dtype)
    list(relax_many(molecules[:4], calculator, steps=2))
    start = time.perf_counter()
    outcomes = sorted(relax_many(molecules, calculator, fmax=arguments.fmax), key=lambda one: one.place)
    seconds = time.perf_counter() - start
    results = [outcome.result for outcome in outcomes]
    return {
        "seconds": seconds,
        "energies": [None if result is None else result.energy for result in results],
        "steps": [0 if result is None else result.steps for result in results],
        "converged": [outcome.status == "converged" for outcome in outcomes],
    }


def _one_by_one(molecules: list[Atoms], calculator: Any, fmax: float) -> list[tuple[float, int, bool]]:
    from ase.optimize import BFGS

    found = []
    for atoms in molecules:
        atoms.calc = calculator
        driver = BFGS(atoms, logfile=None)
        converged = driver.run(fmax=fmax, steps=500)
        found.append((float(atoms.get_potential_energy()), driver.nsteps, bool(converged)))
    return found


def _as_columns(seconds: float, found: list[tuple[float, int, bool]]) -> dict[str, Any]:
    energies, steps, converged = (list(column) for column in zip(*found, strict=True))
    return {"seconds": seconds, "energies": energies, "steps": steps, "converged": converged}


def _ase(molecules: list[Atoms], arguments: argparse.Namespace) -> dict[str, Any]:
    from mlip.calculators import MLIPCalculator

    calculator = MLIPCalculator(arguments.model, dtype=arguments.dtype)
    _one_by_one([molecules[0].copy()], calculator, 1.0)
    start = time.perf_counter()
    found = _one_by_one(molecules, calculator, arguments.fmax)
    return _as_columns(time.perf_counter() - start, found)


def _gfn2_part(part: tuple[list[Atoms], float]) -> list[tuple[float, int, bool]]:
    from tblite.ase import TBLite

    molecules, fmax = part
    return _one_by_one(molecules, TBLite(method="GFN2-xTB", verbosity=0), fmax)


def _gfn2(molecules: list[Atoms], arguments: argparse.Namespace) -> dict[str, Any]:
    with get_context("spawn").Pool(arguments.threads) as pool:
        pool.map(_gfn2_part, [([molecules[0].copy()], 10.0)] * arguments.threads, chunksize=1)
        start = time.perf_counter()
        found = pool.map(_gfn2_part, [([atoms], arguments.fmax) for atoms in molecules], chunksize=1)
        seconds = time.perf_counter() - start
    return _as_columns(seconds, [one for part in found for one in part])


def _agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    count = len(theirs["energies"])
    change = np.array(ours["energies"][:count], dtype=float) - np.array(theirs["energies"], dtype=float)
    return {
        "same": round(float((np.abs(change) < SAME).mean()), 3),
        "batch_lower": round(float((change <= -SAME).mean()), 3),
        "batch_higher": round(float((change >= SAME).mean()), 3),
    }


if __name__ == "__main__":
    main()
