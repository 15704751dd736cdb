"""Isomorphisms of small coloured graphs: molecules as atoms (coloured by element) and bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Int

ROUNDS: Final = 6
"""Of refinement; enough to tell atoms that differ within six bonds, and what is left the search sorts out."""


def refined(
    colours: Int[np.ndarray, " atoms"], bonded: Bool[np.ndarray, "atoms atoms"]
) -> Int[np.ndarray, " atoms"]:
    """Colours that also tell the neighbourhood (Weisfeiler–Leman): the same numbers in isomorphic graphs."""
    adjacency = bonded.astype(np.int64)
    mixed = _scrambled(colours.astype(np.int64))
    for _ in range(ROUNDS):
        mixed = _scrambled(3 * mixed + adjacency @ _scrambled(mixed + 1))
    return mixed


def fingerprint(colours: Int[np.ndarray, " atoms"], bonded: Bool[np.ndarray, "atoms atoms"]) -> int:
    """One number for a graph, the same for isomorphic ones."""
    return int(np.sum(_scrambled(refined(colours, bonded) + 7)))


def _scrambled(numbers: Int[np.ndarray, " atoms"]) -> Int[np.ndarray, " atoms"]:
    """A hash of each number, by the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (x ^ (x >> np.uint64(31))).astype(np.int64)


def isomorphisms(
    colours: tuple[Int[np.ndarray, " atoms"], Int[np.ndarray, " atoms"]],
    bonded: tuple[Bool[np.ndarray, "atoms atoms"], Bool[np.ndarray, "atoms atoms"]],
) -> Iterator[Int[np.ndarray, " atoms"]]:
    """All ways to place the atoms of the first graph on those of the second so that colours and bonds agree.

    Ends of the same kind at the same atom, such as the hydrogens of a methyl group, are interchangeable: of
    their permutations only one is given.

    Yields:
        For each atom of the first graph, the atom of the second.
    """
    fine = refined(colours[0], bonded[0]), refined(colours[1], bonded[1])
    if sorted(fine[0]) != sorted(fine[1]):
        return
    order = _connected_order(fine[0], bonded[0])
    twins = _twins(fine[0], bonded[0])
    place = np.full(len(order), -1)
    used = np.zeros(len(order), dtype=bool)

    def fill(depth: int) -> Iterator[Int[np.ndarray, " atoms"]]:
        if depth == len(order):
            yield place.copy()
            return
        atom = order[depth]
        placed = order[:depth]
        floor = max((place[twin] for twin in twins[atom] if place[twin] >= 0), default=-1)
        for candidate in np.flatnonzero((fine[1] == fine[0][atom]) & ~used):
            if candidate > floor and (bonded[1][candidate, place[placed]] == bonded[0][atom, placed]).all():
                place[atom], used[candidate] = candidate, True
                yield from fill(depth + 1)
                place[atom], used[candidate] = -1, False

    yield from fill(0)


def _connected_order(
    colours: Int[np.ndarray, " atoms"], bonded: Bool[np.ndarray, "atoms atoms"]
) -> Int[np.ndarray, " atoms"]:
    """Atoms so that each but the first of a molecule is bonded to an earlier one; rare colours first."""
    _, inverse, counts = np.unique(colours, return_inverse=True, return_counts=True)
    rarity = counts[inverse]
    order: list[int] = []
    left = set(range(len(colours)))
    while left:
        reached = {atom for atom in left if order and bonded[atom, order].any()}
        nxt = min(reached or left, key=lambda atom: (rarity[atom], atom))
        order.append(nxt)
        left.remove(nxt)
    return np.array(order, dtype=np.int64)


def _twins(colours: Int[np.ndarray, " atoms"], bonded: Bool[np.ndarray, "atoms atoms"]) -> list[list[int]]:
    """For each end atom, the others of its colour at the same atom."""
    parent = {
        int(end): int(np.flatnonzero(bonded[end])[0]) for end in np.flatnonzero(bonded.sum(axis=1) == 1)
    }

    def alike(one: int, other: int) -> bool:
        return one != other and parent[one] == parent[other] and bool(colours[one] == colours[other])

    return [
        [other for other in parent if alike(atom, other)] if atom in parent else []
        for atom in range(len(colours))
    ]
