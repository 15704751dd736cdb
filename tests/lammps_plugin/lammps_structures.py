"""Structures of silicon and oxygen that between them have everything that can go wrong."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, surface

from mlip.lammps_plugin.parity import Case


def shaken(atoms: Atoms, *, oxygen: float = 0.4, seed: int = 0) -> Atoms:
    """A copy with atoms displaced and some of them made oxygen."""
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
    atoms.numbers = np.where(rng.random(len(atoms)) < oxygen, 8, atoms.numbers)
    return atoms


def crystal(repeat: tuple[int, int, int] = (2, 2, 2), **options: float) -> Atoms:
    return shaken(bulk("Si", cubic=True).repeat(repeat), **options)  # type: ignore[arg-type]


def sheared() -> Atoms:
    rng = np.random.default_rng(5)
    atoms = bulk("Si").repeat((3, 3, 2))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * rng.normal(size=(3, 3))), scale_atoms=True)
    return shaken(atoms)


def slab() -> Atoms:
    return shaken(surface("Si", (1, 1, 1), 2, vacuum=9.0).repeat((2, 2, 1)))


def cases() -> list[Case]:
    molecule = Atoms(
        "SiO4Si", [[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0.1], [-1.6, 0.2, 0], [0, -1.5, 0.5], [1, 1, 2]]
    )
    boxed = molecule.copy()
    boxed.cell, boxed.pbc = [14, 15, 16], True
    periodic_slab, mixed_slab = slab(), slab()
    periodic_slab.pbc, mixed_slab.pbc = True, [True, True, False]
    wire = crystal((3, 1, 1))
    wire.pbc = [True, False, False]
    aside = crystal((1, 1, 1))
    aside.cell = [30.0, 5.43, 5.43]
    apart = Atoms("SiO", [[1, 1, 1], [9, 9, 9]], cell=[20, 20, 20], pbc=True)
    overlay = ("pair_style hybrid/overlay mlip zero 6.0", "pair_coeff * * mlip {package} {symbols}")
    return [
        Case(name="molecule", atoms=molecule),
        Case(name="molecule in a periodic box", atoms=boxed),
        Case(name="crystal", atoms=crystal(oxygen=0.0)),
        Case(name="two species", atoms=crystal()),
        Case(name="triclinic", atoms=sheared()),
        Case(name="slab, periodic", atoms=periodic_slab),
        Case(name="slab, mixed boundaries", atoms=mixed_slab),
        Case(name="wire", atoms=wire),
        Case(name="cell smaller than the cutoff", atoms=shaken(bulk("Si"))),
        Case(name="processes without atoms", atoms=aside),
        Case(name="no edges", atoms=apart),
        Case(name="newton off", atoms=sheared(), commands=("newton off",)),
        Case(name="tiled", atoms=crystal((3, 2, 2)), commands=("comm_style tiled",)),
        Case(name="overlay", atoms=sheared(), pair=(*overlay, "pair_coeff * * zero")),
    ]
