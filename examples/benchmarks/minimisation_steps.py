"""How many steps does RFO need, with predicted, true or updated Hessians, and how many does ASE's BFGS?

Reactants of the pairs are displaced by Gaussian noise of 0.1, 0.3 and 0.5 Å in each coordinate and
minimised to 0.05 eV/Å by each optimiser on the same surface. A run that fails or takes more than 300
steps counts as 300. One line of JSON per optimiser and noise: quartiles of steps, runs that converged,
energies reached above the lowest of all optimisers.

    python examples/benchmarks/minimisation_steps.py --pairs ../shared/data/reactions/t1x_pairs --limit 20
"""

from __future__ import annotations

import argparse
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.optimize import BFGS
from measurement import common_facts, emit, note, quartiles
from searches import add_search_options, chosen_files, chosen_surface

from mlip.errors import InputError
from mlip.search.rfo import RFO

FMAX = 0.05
STEPS = 300
NOISE = (0.1, 0.3, 0.5)
OPTIMISERS: dict[str, tuple[type, dict[str, Any]]] = {
    "rfo, predicted Hessians": (RFO, {}),
    "rfo, true Hessian at each step": (RFO, {"hessian_every": 1}),
    "rfo, model Hessian and updates": (RFO, {"hessian_every": 0}),
    "ASE BFGS": (BFGS, {}),
}


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts, engine = chosen_surface(arguments)
    common = {
        **common_facts("minimisation_steps", arguments),
        **facts,
        "fmax_eV_per_A": FMAX,
    }
    files = chosen_files(arguments)
    for noise in NOISE:
        starts = [_displaced(ase.io.read(path, index=0), noise, seed) for seed, path in enumerate(files)]
        runs = {
            name: [_minimised(atoms, engine, *what) for atoms in starts] for name, what in OPTIMISERS.items()
        }
        energies = np.array([[energy for _, energy, _ in results] for results in runs.values()])
        above = energies - np.nanmin(energies, axis=0)
        baseline = float(np.median([steps for steps, _, _ in runs["ASE BFGS"]]))
        for row, (name, results) in enumerate(runs.items()):
            steps = [steps for steps, _, _ in results]
            emit(
                {
                    **common,
                    "noise_A": noise,
                    "optimiser": name,
                    "structures": len(starts),
                    "converged": sum(converged for _, _, converged in results),
                    "steps": quartiles(steps),
                    "share_of_bfgs_steps": round(float(np.median(steps)) / baseline, 3),
                    "same_minimum": int((above[row] < 0.01).sum()),
                }
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_search_options(parser, pairs="folder of files whose first frames are taken", each="structure")
    return parser.parse_args()


def _displaced(atoms: Atoms, noise: float, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(scale=noise, size=moved.positions.shape)
    return moved


def _minimised(
    atoms: Atoms, engine: Any, optimiser: type, options: dict[str, Any]
) -> tuple[int, float, bool]:
    """Steps, energy, whether it converged."""
    moved = atoms.copy()
    moved.calc = engine
    driver = optimiser(moved, logfile=None, **options)
    try:
        converged = bool(driver.run(fmax=FMAX, steps=STEPS))
        return (driver.nsteps if converged else STEPS), float(moved.get_potential_energy()), converged
    except (InputError, ArithmeticError) as error:
        note(f"{atoms.get_chemical_formula()}: {error}")
        return STEPS, float("nan"), False


if __name__ == "__main__":
    main()
