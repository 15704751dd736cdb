"""`Topology`: atoms and the bonds that they are meant to have, and tests of geometries against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BONDED = 1.3
"""Bonds are shorter than this times the sum of the covalent radii."""
APART = 1.12
"""Pairs without a bond are farther apart than this times the sum of the covalent radii."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Atoms and bonds of a molecule or of several.

    Attributes:
        numbers: (N,) atomic numbers.
        bonds: (B, 2) indices of atoms.
        ring_bond: (B,) whether the bond is part of a ring.
    """

    numbers: Indices
    bonds: Indices
    ring_bond: NDArray[np.bool_]

    @staticmethod
    def of_mol(mol: Mol) -> Topology:
        """Of an RDKit molecule with explicit hydrogens."""
        bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
        return Topology(
            numbers=np.array([a.GetAtomicNum() for a in mol.GetAtoms()], dtype=np.int64),
            bonds=np.array(bonds, dtype=np.int64).reshape(-1, 2),
            ring_bond=np.array([b.IsInRing() for b in mol.GetBonds()], dtype=bool),
        )

    @staticmethod
    def of_geometry(numbers: Indices, positions: Array) -> Topology:
        """Bonds wherever two atoms are closer than `BONDED` times the sum of their covalent radii."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        ratio = bond_ratio(numbers, positions)
        bonds = np.argwhere(np.triu(ratio < BONDED, 1))
        n = len(numbers)
        ring = []
        for k in range(len(bonds)):
            rest = np.delete(bonds, k, axis=0)
            graph = csr_array((np.ones(len(rest)), (rest[:, 0], rest[:, 1])), shape=(n, n))
            part = connected_components(graph, directed=False)[1]
            ring.append(part[bonds[k, 0]] == part[bonds[k, 1]])
        return Topology(
            np.asarray(numbers, dtype=np.int64), bonds.astype(np.int64), np.array(ring, dtype=bool)
        )

    @staticmethod
    def joined(parts: Sequence[Topology]) -> Topology:
        """Side by side, without a bond between them."""
        first = np.cumsum([0] + [len(p.numbers) for p in parts[:-1]])
        return Topology(
            np.concatenate([p.numbers for p in parts]),
            np.concatenate([p.bonds + k for p, k in zip(parts, first, strict=True)]),
            np.concatenate([p.ring_bond for p in parts]),
        )

    @property
    def adjacency(self) -> NDArray[np.bool_]:
        """(N, N) whether two atoms are bonded."""
        out = np.zeros((len(self.numbers),) * 2, dtype=bool)
        out[self.bonds[:, 0], self.bonds[:, 1]] = out[self.bonds[:, 1], self.bonds[:, 0]] = True
        return out

    def intact(self, positions: Array) -> bool:
        """Whether all bonds of the topology, and no others, are there."""
        ratio, bonded = bond_ratio(self.numbers, positions), self.adjacency
        apart = ~bonded & ~np.eye(len(ratio), dtype=bool)
        return bool((ratio[bonded] < BONDED).all() and (ratio[apart] > APART).all())

    def side(self, bond: int) -> Indices:
        """Atoms that hang on the second end of a bond, that end included; the bond is not in a ring."""
        begin, end = (int(k) for k in self.bonds[bond])
        adjacency = self.adjacency
        seen, stack = {begin, end}, [end]
        while stack:
            for k in np.flatnonzero(adjacency[stack.pop()]).tolist():
                if k not in seen:
                    seen.add(k)
                    stack.append(k)
        return np.array(sorted(seen - {begin}), dtype=np.int64)


def distances(positions: Array) -> Array:
    """(N, N) distances, Å."""
    return np.asarray(np.linalg.norm(positions[:, None] - positions, axis=-1))


def bond_ratio(numbers: Indices, positions: Array) -> Array:
    """(N, N) distances over sums of covalent radii; large on the diagonal."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    return np.asarray(distances(positions) / (radii[:, None] + radii) + 10.0 * np.eye(len(radii)))
