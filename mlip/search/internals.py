"""Redundant internal coordinates of a structure: which ones there are, and how stiff each is.

Stretches along bonds, bends between two bonds of an atom, torsions about bonds, the wag of an atom out of the
plane of its three neighbours, and two bends across each linear pair of bonds. Bonds come from the distances
alone; fragments are joined by their nearest atoms. Where these coordinates leave a motion out (crystals,
fixed atoms, groups at the end of a linear chain) the Cartesian ones are added.

The stiffness is a guess that makes a good first Hessian: M. Swart and F. M. Bickelhaupt, Int. J. Quantum
Chem. 106, 2536 (2006), after R. Lindh et al., Chem. Phys. Lett. 241, 423 (1995): with
ρ = exp(1 − r / (R_i + R_j)), 0.45 ρ for stretches, 0.15 ρρ for bends and 0.005 ρρρ for torsions, in
hartree, bohr and rad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.neighbors import neighbor_list
from mlip.search.model_hessian import BEND, STRETCH, TORSION
from mlip.units import HARTREE

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float64, Int64

BOND: Final = 1.3
"""Atoms are bonded up to this multiple of the sum of their covalent radii."""

LINEAR: Final = np.radians(175.0)
"""Bends wider than this are described by two components across the line instead."""

MOST_NEIGHBOURS: Final = 4
"""Atoms with more bonds (metals, close packing) get stretches only."""

LARGEST_DENSE: Final = 300
"""Atoms of a molecule up to which all distances are looked at to find its bonds."""

FLAT: Final = 0.35
"""Triple product of the unit vectors to three neighbours up to which an atom counts as planar."""

WAG: Final = 0.02 * HARTREE
"""eV; of a wag."""

CARTESIAN: Final = 0.05
"""eV/Å²; of a Cartesian coordinate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Internals:
    """The coordinates of one structure, in this order: stretches, bends, torsions, wags, linear bends,
    Cartesian coordinates.

    Attributes:
        ends: (edges, 2), atoms at the tail and at the head of each bond, both ways round.
        shifts: (edges, 3), lattice vectors added to the head.
        stretches: (n,), edges.
        bends: (n, 2), edges that leave the middle atom.
        torsions: (n, 3), edges middle to first atom, middle to middle, second middle to last atom.
        wags: (n, 3), edges that leave the planar atom.
        linear: (n, 2), edges that leave the middle atom; one entry for each of the two directions.
        directions: (n, 3), unit vector across the line for each entry of `linear`.
        cartesian: (n,), flat indices of the coordinates that count themselves.
        stiffness: (coordinates,), eV/Å² or eV/rad².
    """

    ends: Int64[np.ndarray, "edges 2"]
    shifts: Float64[np.ndarray, "edges 3"]
    stretches: Int64[np.ndarray, " stretches"]
    bends: Int64[np.ndarray, "bends 2"]
    torsions: Int64[np.ndarray, "torsions 3"]
    wags: Int64[np.ndarray, "wags 3"]
    linear: Int64[np.ndarray, "linear 2"]
    directions: Float64[np.ndarray, "linear 3"]
    cartesian: Int64[np.ndarray, " cartesian"]
    stiffness: Float64[np.ndarray, " coordinates"]


def find_internals(atoms: Atoms, *, cartesian: bool) -> Internals:
    """Choose coordinates for `atoms`.

    Args:
        atoms: The structure; constraints are not looked at.
        cartesian: Add the Cartesian coordinates, too.
    """
    tails, heads, shifts, rho = _bonds(atoms)
    lengths = shifts @ atoms.cell.array + atoms.positions[heads] - atoms.positions[tails]
    units = lengths / np.linalg.norm(lengths, axis=1)[:, None]
    few = np.bincount(tails, minlength=len(atoms)) <= MOST_NEIGHBOURS
    back = _reverse(tails, heads, shifts)
    stretches = np.flatnonzero(np.arange(len(tails)) <= back)
    pairs = _pairs_around(tails, few)
    cosines = np.einsum("ij,ij->i", units[pairs[:, 0]], units[pairs[:, 1]])
    straight = cosines < np.cos(LINEAR)
    bends, lines = pairs[~straight], pairs[straight]
    torsions = _torsions(tails, heads, shifts, stretches, back, units, few)
    wags = _wags(tails, units)
    directions = _across(units[lines[:, 0]])
    moved = np.arange(3 * len(atoms)) if cartesian else np.zeros(0, dtype=np.int64)
    stiffness = [
        STRETCH * rho[stretches],
        BEND * rho[bends].prod(axis=1),
        TORSION * rho[torsions].prod(axis=1),
        np.full(len(wags), WAG),
        np.repeat(BEND * rho[lines].prod(axis=1), 2),
        np.full(len(moved), CARTESIAN),
    ]
    return Internals(
        ends=np.stack([tails, heads], axis=1),
        shifts=shifts,
        stretches=stretches,
        bends=bends,
        torsions=torsions,
        wags=wags,
        linear=np.repeat(lines, 2, axis=0),
        directions=directions,
        cartesian=moved,
        stiffness=np.concatenate(stiffness),
    )


def _bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tails, heads, shifts (float) and ρ of all bonds, both ways round, by tail."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    positions, cell = atoms.positions, atoms.cell.array
    if len(atoms) == 1 and not atoms.pbc.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0)
    reach = 2.0 * BOND * float(radii.max())
    if atoms.pbc.any() or len(atoms) > LARGEST_DENSE:
        heads, tails, images = neighbor_list(positions, cell, atoms.pbc, reach)
        shifts = images.astype(np.float64)
    else:
        tails, heads = np.nonzero(~np.eye(len(atoms), dtype=bool))
        shifts = np.zeros((len(tails), 3))
    distances = np.linalg.norm(positions[heads] - positions[tails] + shifts @ cell, axis=1)
    contact = radii[heads] + radii[tails]
    bonded = distances < BOND * contact
    tails, heads, shifts = tails[bonded], heads[bonded], shifts[bonded]
    rho = np.exp(1.0 - distances[bonded] / contact[bonded])
    if atoms.pbc.any():
        return tails, heads, shifts, rho
    more = _joints(positions, tails, heads)
    if len(more):
        both = np.concatenate([more, more[:, ::-1]])
        apart = np.linalg.norm(positions[both[:, 0]] - positions[both[:, 1]], axis=1)
        tails, heads = np.concatenate([tails, both[:, 0]]), np.concatenate([heads, both[:, 1]])
        rho = np.concatenate([rho, np.exp(1.0 - apart / radii[both].sum(axis=1))])
        order = np.lexsort((heads, tails))
        tails, heads, rho = tails[order], heads[order], rho[order]
    return tails, heads, np.zeros((len(tails), 3)), rho


def _joints(positions: np.ndarray, tails: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """(n, 2), pairs of nearest atoms that join the fragments to one, shortest first."""
    size = len(positions)
    reached = np.eye(size, dtype=np.float32)
    reached[tails, heads] = 1.0
    for _ in range(int(np.ceil(np.log2(size)))):
        reached = np.minimum(reached @ reached, 1.0)
    label = reached.argmax(axis=1)  # the first atom that each one is joined to
    count = len(np.unique(label))
    joints: list[tuple[int, int]] = []
    if count > 1:
        apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        while count > 1:
            apart[label[:, None] == label[None]] = np.inf
            first, second = divmod(int(apart.argmin()), size)
            joints.append((first, second))
            label[label == label[second]] = label[first]
            count -= 1
    return np.array(joints, dtype=np.int64).reshape(-1, 2)


def _reverse(tails: np.ndarray, heads: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """For each edge, the edge of the same bond the other way round."""
    forward = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], heads, tails))
    backward = np.lexsort((-shifts[:, 2], -shifts[:, 1], -shifts[:, 0], tails, heads))
    reverse = np.empty(len(tails), dtype=np.int64)
    reverse[backward] = forward
    return reverse


def _pairs_around(tails: np.ndarray, few: np.ndarray) -> np.ndarray:
    """(n, 2), pairs of edges that leave the same atom, each pair once."""
    first, second = np.nonzero(np.triu(tails[:, None] == tails[None], 1))
    kept = few[tails[first]]
    return np.stack([first[kept], second[kept]], axis=1)


def _torsions(
    tails: np.ndarray,
    heads: np.ndarray,
    shifts: np.ndarray,
    bonds: np.ndarray,
    back: np.ndarray,
    units: np.ndarray,
    few: np.ndarray,
) -> np.ndarray:
    """(n, 3), see `Internals`; none with three atoms in a line or with an atom at both ends."""
    bonds = bonds[few[tails[bonds]] & few[heads[bonds]]]
    first_of, first = np.nonzero(tails[bonds][:, None] == tails[None])
    kept = (first != bonds[first_of]) & _bent(units, bonds[first_of], first, 1.0)
    first_of, first = first_of[kept], first[kept]
    entry, last = np.nonzero(heads[bonds[first_of]][:, None] == tails[None])
    middle, first = bonds[first_of[entry]], first[entry]
    kept = (last != back[middle]) & _bent(units, middle, last, -1.0)
    middle, first, last = middle[kept], first[kept], last[kept]
    same = (heads[first] == heads[last]) & (shifts[first] == shifts[middle] + shifts[last]).all(axis=1)
    return np.stack([first, middle, last], axis=1)[~same]


def _bent(units: np.ndarray, one: np.ndarray, other: np.ndarray, sign: float) -> np.ndarray:
    """Whether two edges are not in a line, whichever way they point."""
    return sign * np.einsum("ij,ij->i", units[one], units[other]) > np.cos(LINEAR)


def _wags(tails: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(n, 3), the edges of atoms that lie in the plane of their three neighbours."""
    starts = np.flatnonzero(np.diff(tails, prepend=-1))
    counts = np.diff(starts, append=len(tails))
    triples = starts[counts == 3][:, None] + np.arange(3)
    a, b, c = (units[triples[:, k]] for k in range(3))
    flat = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c))) < FLAT
    return triples[flat].reshape(-1, 3)


def _across(units: np.ndarray) -> np.ndarray:
    """(2n, 3), two directions at right angles to each unit vector and to each other."""
    if len(units) == 0:
        return np.zeros((0, 3))
    smallest = np.eye(3)[np.abs(units).argmin(axis=1)]
    first = np.cross(units, smallest)
    first /= np.linalg.norm(first, axis=1)[:, None]
    return np.stack([first, np.cross(units, first)], axis=1).reshape(-1, 3)
