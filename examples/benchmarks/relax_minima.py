"""In how many steps do drug-sized molecules reach their minimum?

The molecules of Birkholz and Schlegel (Theor. Chem. Acc. 135, 84 (2016)), compared with the steps that
`reference.json` lists for GFN2-xTB. A step is one more evaluation of energy and forces. Each minimum is
confirmed by relaxing on, to a tenth of the force: `above_minimum_meV` is what that still gains.

    python examples/benchmarks/relax_minima.py --data ../shared/data/minima --model default
    python examples/benchmarks/relax_minima.py --data ../shared/data/minima --gfn2 --only estradiol codeine
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from measurement import common_facts, emit, note

from mlip.calculators import BatchCalculator
from mlip.search.batch_relax import Outcome, relax_many


def main() -> None:
    arguments = _arguments()
    common = common_facts("relax_minima", arguments)
    reference = json.loads((arguments.data / "reference.json").read_text())
    molecules = dict(_molecules(arguments, reference))
    surface: Any = None if arguments.gfn2 else BatchCalculator(arguments.model)
    covered = {name: atoms for name, atoms in molecules.items() if _covers(surface, atoms)}
    for name in sorted(set(molecules) - set(covered)):
        note(f"{name}: has elements that the model does not know")
    results: dict[str, Outcome] = {}
    if surface is not None:
        names = list(covered)
        for outcome in relax_many(
            covered.values(), surface, fmax=arguments.fmax, optimizer=arguments.optimizer
        ):
            results[names[outcome.place]] = outcome
    lines = []
    for name, atoms in covered.items():
        where = surface if surface is not None else _gfn2(reference[name])
        outcome = results.get(name) or next(
            relax_many([atoms], where, fmax=arguments.fmax, optimizer=arguments.optimizer)
        )
        lines.append(_line(name, reference[name], outcome, where, arguments.fmax))
        emit({**common, **lines[-1]})
    counted = [line for line in lines if line["reference_steps"] is not None]
    emit(
        {
            **common,
            "model": "GFN2-xTB" if arguments.gfn2 else arguments.model,
            "fmax": arguments.fmax,
            "optimizer": arguments.optimizer,
            "molecules": len(lines),
            "within_reference": sum(line["steps"] <= line["reference_steps"] for line in counted),
            "of": len(counted),
            "steps": sum(line["steps"] for line in counted),
            "reference_steps": sum(line["reference_steps"] for line in counted),
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with reference.json and .xyz files")
    parser.add_argument("--model", default="default", help="bundled model or checkpoint")
    parser.add_argument("--gfn2", action="store_true", help="GFN2-xTB itself (tblite) instead of a model")
    parser.add_argument("--fmax", type=float, default=0.02, help="eV/Å")
    parser.add_argument("--optimizer", default="auto")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the molecules")
    return parser.parse_args()


def _molecules(arguments: argparse.Namespace, reference: dict[str, Any]) -> Iterator[tuple[str, Atoms]]:
    unknown = set(arguments.only or []) - set(reference)
    if unknown:
        sys.exit(f"no molecule is called {', '.join(sorted(unknown))}")
    for name in reference:
        if arguments.only is None or name in arguments.only:
            yield name, read(arguments.data / f"{name}.xyz")


def _covers(surface: BatchCalculator | None, atoms: Atoms) -> bool:
    return surface is None or set(atoms.numbers.tolist()) <= set(surface.potential.species)


def _gfn2(entry: dict[str, Any]) -> Any:
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0, charge=entry["charge"], multiplicity=entry["mult"])


def _line(name: str, entry: dict[str, Any], outcome: Outcome, surface: Any, fmax: float) -> dict[str, Any]:
    budget = entry["xtb_gfn2_steps"]
    result = outcome.result
    if result is None:
        return {"molecule": name, "status": outcome.status, "message": outcome.message}
    deeper = next(relax_many([result.atoms], surface, fmax=0.1 * fmax)).result
    return {
        "molecule": name,
        "atoms": len(result.atoms),
        "charge": entry["charge"],
        "status": outcome.status,
        "steps": result.steps,
        "reference_steps": budget,
        "fmax_eV_per_A": round(result.fmax, 4),
        "above_minimum_meV": None if deeper is None else round(1e3 * (result.energy - deeper.energy), 2),
        "moved_on_A": None if deeper is None else round(_deviation(result.atoms, deeper.atoms), 3),
    }


def _deviation(one: Atoms, other: Atoms) -> float:
    """Root mean square deviation after superposition, Å."""
    from ase.build import minimize_rotation_and_translation

    moved = other.copy()
    minimize_rotation_and_translation(one, moved)
    return float(np.sqrt(((one.positions - moved.positions) ** 2).sum(axis=1).mean()))


if __name__ == "__main__":
    main()
