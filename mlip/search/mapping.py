"""Which atom of the product is which of the reactant.

A mapping says what bonds a reaction breaks and forms, so a wrong one asks for another, usually hopeless,
reaction. The order given is kept unless it cannot be meant: other elements in the same places, or more
bonds changed than an elementary step changes while another order needs half as many or fewer. Then all
mappings with the fewest bonds broken and formed are found, exactly, and ranked by handedness and
distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice, permutations
from typing import TYPE_CHECKING, Final

import numpy as np
from ase.constraints import FixAtoms

from mlip.alignment import superposed
from mlip.calculators.electrons import charge_of, multiplicity_of
from mlip.errors import InputError
from mlip.search.bonds import bond_changes, bond_matrix
from mlip.search.isomorphism import fingerprint, isomorphisms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from jaxtyping import Bool, Int

    Bonds = Bool[np.ndarray, "atoms atoms"]
    Order = Int[np.ndarray, " atoms"]

MOST_KEPT: Final = 6
"""Bonds changed by an order that is taken as it was given without looking for another."""

SAME_PLACE: Final = 0.01
"""Å; what must not move between reactant and product may differ by this in their files."""

MOST_CHANGED: Final = 3
"""Bonds broken, and bonds formed, at most, in the search for a mapping."""

MOST_COMPARED: Final = 400
"""Mappings with equally few changed bonds that are compared by geometry."""

MOST_ARRANGEMENTS: Final = 24
"""Of interchangeable ends at one atom that are compared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mapping:
    """The product's atoms in the reactant's order.

    Attributes:
        order: `product[order]` has its atoms in the reactant's order.
        given: Whether that is the order in which they were given.
        broken: Bonds of the reactant that the product lacks; atoms numbered as in the reactant.
        formed: Bonds of the product that the reactant lacks.
        inverted: Centres away from changed bonds whose handedness the mapping inverts.
        rmsd: Of the superposed structures, Å.
    """

    order: Order
    given: bool
    broken: list[tuple[int, int]]
    formed: list[tuple[int, int]]
    inverted: int
    rmsd: float


def conditions_differ(reactant: Atoms, product: Atoms) -> str:
    """Why two structures lie on different energy surfaces; empty where they do not.

    Raises:
        InputError: The charge or spin of one is no whole number.
    """
    charges = charge_of(reactant) or 0, charge_of(product) or 0
    spins = multiplicity_of(reactant), multiplicity_of(product)
    for what, (first, second) in (("net charge", charges), ("multiplicity", spins)):
        if first != second:
            return f"the {what} of the reactant is {first}, that of the product {second}: give both the same"
    if (reactant.pbc != product.pbc).any():
        names = ["a free molecule" if not a.pbc.any() else f"periodic {a.pbc}" for a in (reactant, product)]
        return f"the reactant is {names[0]}, the product {names[1]}: give both the same boundary conditions"
    apart = float(np.abs(reactant.cell.array - product.cell.array).max()) if reactant.pbc.any() else 0.0
    if apart > SAME_PLACE:
        return f"the cells of reactant and product differ by {apart:.3g} Å: give both the same cell"
    return ""


def fixed_differ(reactant: Atoms, product: Atoms) -> str:
    """Why two structures, in the same order, do not hold the same atoms in the same places; empty where they
    do."""
    fixed = [
        sorted({int(k) for one in atoms.constraints if isinstance(one, FixAtoms) for k in one.index})
        for atoms in (reactant, product)
    ]
    if fixed[0] != fixed[1]:
        return (
            f"the reactant holds {len(fixed[0])} atoms fixed, the product {len(fixed[1])}, or other ones: "
            "fix the same in both"
        )
    apart = np.linalg.norm(reactant.positions - product.positions, axis=1)[fixed[0]]
    if apart.max(initial=0.0) > SAME_PLACE:
        worst = fixed[0][int(apart.argmax())]
        return (
            f"atom {worst} is fixed, but {apart.max():.3g} Å apart in reactant and product: give both the "
            "same places of fixed atoms"
        )
    return ""


def map_atoms(reactant: Atoms, product: Atoms) -> Mapping:
    """The mapping to use, as told at the top of this file.

    Raises:
        InputError: The formulas differ, or the order given cannot be meant and no mapping within
            `MOST_CHANGED` bonds was found.
    """
    if sorted(reactant.numbers) != sorted(product.numbers):
        raise InputError(
            f"the reactant is {reactant.get_chemical_formula()}, the product "
            f"{product.get_chemical_formula()}: both must have the same atoms"
        )
    same = bool((reactant.numbers == product.numbers).all())
    given = _mapping(reactant, product, np.arange(len(reactant)), given=True) if same else None
    if given is not None and len(given.broken) + len(given.formed) <= MOST_KEPT:
        return given
    if reactant.pbc.any():
        if given is not None:
            return given
        raise InputError(
            "the atoms of a periodic reactant and product must be in the same order: reorder one"
        )
    found = best_mapping(reactant, product)
    if given is not None:
        changed = len(given.broken) + len(given.formed)
        if found is None or 2 * (len(found.broken) + len(found.formed)) > changed:
            return given
    if found is None:
        raise InputError(
            "the atoms of the product are in another order than the reactant's, and no order was found that "
            f"changes {MOST_CHANGED} bonds each way or fewer: reorder them"
        )
    return found


def best_mapping(reactant: Atoms, product: Atoms) -> Mapping | None:
    """The mapping with the fewest bonds changed, then the fewest inverted centres, then the least RMSD."""
    candidates = [
        _refined(reactant, product, order)
        for order in islice(_fewest_changes(reactant, product), MOST_COMPARED)
    ]
    return min(candidates, key=lambda mapping: (mapping.inverted, mapping.rmsd), default=None)


def _fewest_changes(reactant: Atoms, product: Atoms) -> Iterator[Order]:
    """All mappings with the fewest changes, found by taking bonds out of both graphs until they agree."""
    bonds = bond_matrix(reactant), bond_matrix(product)
    surplus = int(bonds[0].sum() - bonds[1].sum()) // 2
    for broken in range(max(0, surplus), MOST_CHANGED + 1):
        formed = broken - surplus
        if formed > MOST_CHANGED:
            return
        pruned: dict[int, list[Bonds]] = {}
        for graph in _without(bonds[1], formed):
            pruned.setdefault(fingerprint(product.numbers, graph), []).append(graph)
        any_found = False
        for left in _without(bonds[0], broken):
            for right in pruned.get(fingerprint(reactant.numbers, left), []):
                for order in isomorphisms((reactant.numbers, product.numbers), (left, right)):
                    any_found = True
                    yield order
        if any_found:
            return


def _without(bonded: Bonds, number: int) -> Iterator[Bonds]:
    """The graph with `number` of its bonds taken out, in all ways."""
    for taken in combinations(np.argwhere(np.triu(bonded)).tolist(), number):
        graph = bonded.copy()
        for i, j in taken:
            graph[i, j] = graph[j, i] = False
        yield graph


def _refined(reactant: Atoms, product: Atoms, order: Order) -> Mapping:
    """Interchangeable ends placed as handedness and distance would have them."""
    best = _mapping(reactant, product, order, given=False)
    bonds = bond_matrix(product)
    ends = np.flatnonzero(bonds.sum(axis=1) == 1)
    groups: dict[tuple[int, int], list[int]] = {}
    for end in ends:
        groups.setdefault((int(np.flatnonzero(bonds[end])[0]), int(product.numbers[end])), []).append(
            int(end)
        )
    improved = True
    while improved:
        improved = False
        for group in groups.values():
            places = [int(np.flatnonzero(best.order == end)[0]) for end in group]
            for arrangement in islice(permutations(group), MOST_ARRANGEMENTS):
                order = best.order.copy()
                order[places] = arrangement
                trial = _mapping(reactant, product, order, given=False)
                if _rank(trial) < _rank(best):
                    best, improved = trial, True
    return best


def _rank(mapping: Mapping) -> tuple[int, int, float]:
    return len(mapping.broken) + len(mapping.formed), mapping.inverted, round(mapping.rmsd, 9)


def _mapping(reactant: Atoms, product: Atoms, order: Order, *, given: bool) -> Mapping:
    ordered = product[order.tolist()]
    bonds = bond_matrix(reactant), bond_matrix(ordered)
    broken, formed = bond_changes(*bonds)
    apart = superposed(ordered.positions, reactant.positions) - reactant.positions
    return Mapping(
        order=order,
        given=given,
        broken=broken,
        formed=formed,
        inverted=_inverted(reactant, ordered, bonds),
        rmsd=float(np.sqrt((apart**2).sum(axis=1).mean())),
    )


def _inverted(reactant: Atoms, product: Atoms, bonds: Sequence[Bonds]) -> int:
    """Atoms with four neighbours, the same ones in both, whose handedness differs."""
    count = 0
    for atom in np.flatnonzero((bonds[0] == bonds[1]).all(axis=1) & (bonds[0].sum(axis=1) == 4)):
        neighbours = np.flatnonzero(bonds[0][atom])
        volumes = []
        for structure in (reactant, product):
            arms = structure.positions[neighbours[:3]] - structure.positions[neighbours[3]]
            volumes.append(np.linalg.det(arms))
        count += bool(volumes[0] * volumes[1] < 0.0)
    return count
