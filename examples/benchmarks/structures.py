"""The structures of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

FOLDER = Path(__file__).resolve().parent / "structures"


def silicon(repeats: tuple[int, int, int], *, rattle: float = 0.05, seed: int = 0) -> Atoms:
    """Diamond silicon: the cubic cell of 8 atoms (5.43 Å), repeated, every coordinate moved at random.

    Args:
        repeats: Along each axis.
        rattle: Standard deviation of the displacements, Å.
        seed: Of the displacements.
    """
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(repeats)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=atoms.positions.shape)
    return atoms


def molecule(name: str) -> Atoms:
    """`acetylacetone` (15 atoms, a minimum of GFN2-xTB) or `paracetamol` (20 atoms, not relaxed)."""
    atoms = read(FOLDER / f"{name}.xyz", format="xyz")
    assert isinstance(atoms, Atoms)
    return atoms


def labelled(atoms: Atoms, count: int, *, rattle: float = 0.05) -> list[Atoms]:
    """Rattled copies with made-up labels (the time of a training step does not depend on them)."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        frame = atoms.copy()
        frame.positions += random.normal(scale=rattle, size=frame.positions.shape)
        frame.info = {"REF_energy": float(random.normal())}
        frame.arrays["REF_forces"] = random.normal(size=frame.positions.shape)
        frames.append(frame)
    return frames


def save(path: Path, frames: Atoms | list[Atoms]) -> str:
    """Write an extended XYZ file that every worker can read; returns its name."""
    write(path, frames, format="extxyz")
    return str(path)
