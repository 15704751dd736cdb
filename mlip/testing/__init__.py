"""What every potential must do, as one call: `check_potential`.

Use it in the tests of anything that maps an `AtomGraph` to energies: a `Potential` of any model, product
and instruction set, or, through `CalculatorAdapter`, any ASE calculator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from ase import Atoms

from mlip.neighbors import build_graph
from mlip.testing import checks
from mlip.testing.hessians import HessianReport, check_hessian
from mlip.testing.subject import CalculatorAdapter, PotentialLike, Subject, demand, sample_structures

__all__ = [
    "CHECKS",
    "CalculatorAdapter",
    "HessianReport",
    "PotentialLike",
    "check_hessian",
    "check_potential",
    "sample_structures",
]

CHECKS: dict[str, Callable[[Subject], None]] = {
    "outputs": checks.check_outputs,
    "sums": checks.check_sums,
    "isolated": checks.check_isolated,
    "rotation": checks.check_rotation,
    "translation": checks.check_translation,
    "permutation": checks.check_permutation,
    "batch": checks.check_batch,
    "long_edges": checks.check_long_edges,
    "extensivity": checks.check_extensivity,
    "smoothness": checks.check_smoothness,
    "derivatives": checks.check_derivatives,
}
"""What is checked, in this order."""

_DOUBLE_ONLY = ("derivatives", "smoothness")


def check_potential(
    potential: PotentialLike, *, reflections: bool = True, skip: Collection[str] = (), seed: int = 0
) -> None:
    """Check everything that holds for any potential.

    Args:
        potential: Maps a graph to energies, forces and stress; in evaluation mode. In float32 the checks
            by finite differences are left out.
        reflections: Also ask for invariance under reflections; False for a model of SO(3) alone.
        skip: Names from `CHECKS` to leave out.
        seed: Of the structures and transformations.

    Raises:
        AssertionError: a check fails; the message names it, the structure and the numbers.
        ValueError: `skip` holds an unknown name.
    """
    unknown = set(skip) - set(CHECKS)
    if unknown:
        raise ValueError(f"`skip` holds {sorted(unknown)} but the checks are {', '.join(CHECKS)}")
    structures = sample_structures(potential.species, potential.cutoff, seed=seed)
    isolated = torch.zeros(119, dtype=torch.float64)
    for z in potential.species:
        atom = build_graph(Atoms([z], [[0.0, 0.0, 0.0]]), potential.cutoff)
        isolated[z] = potential(atom, forces=False)["energy"].detach().sum()
        demand(bool(isolated[z].isfinite()), f"isolated: the energy of element {z} is {isolated[z]}")
    subject = Subject(potential, structures, isolated, reflections, seed)
    for name, check in CHECKS.items():
        if name in skip or (name in _DOUBLE_ONLY and potential.dtype != torch.float64):
            continue
        try:
            check(subject)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
