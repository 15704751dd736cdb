"""Bonds from distances: two atoms are bonded when closer than 1.2 times the sum of their covalent radii."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Bool

SCALE: Final = 1.2
"""Of the sum of covalent radii (Cordero et al., Dalton Trans. 2008, 2832, as in ASE): the longest bond."""


def bond_matrix(atoms: Atoms, *, scale: float = SCALE) -> Bool[np.ndarray, "atoms atoms"]:
    """Which atoms are bonded; nearest images where the structure is periodic."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    bonded: Bool[np.ndarray, "atoms atoms"] = distances < scale * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    return bonded


def bond_changes(
    before: Bool[np.ndarray, "atoms atoms"], after: Bool[np.ndarray, "atoms atoms"]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of atoms whose bond is broken, and pairs between which one is formed."""
    return _pairs(before & ~after), _pairs(after & ~before)


def _pairs(matrix: Bool[np.ndarray, "atoms atoms"]) -> list[tuple[int, int]]:
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(matrix))]


def describe_changes(atoms: Atoms, broken: list[tuple[int, int]], formed: list[tuple[int, int]]) -> str:
    """For people: "C1-H5 broken, O2-H5 formed"; atoms are counted from 0."""

    def names(pairs: list[tuple[int, int]]) -> str:
        return ", ".join(f"{atoms.symbols[i]}{i}-{atoms.symbols[j]}{j}" for i, j in pairs)

    parts = [f"{names(pairs)} {verb}" for pairs, verb in ((broken, "broken"), (formed, "formed")) if pairs]
    return "; ".join(parts) if parts else "no bond changes"


def fragments(bonded: Bool[np.ndarray, "atoms atoms"]) -> int:
    """Number of molecules."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(bonded, directed=False, return_labels=False))
