"""What a saddle is a saddle of: the verdict on a search for a transition state.

In this order: the saddle has exactly one imaginary mode; both ends of its path were minimised and have
none; the ends are the reactant and the product, by bonds atom by atom, and by distance where those do not
tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from mlip.alignment import rmsd
from mlip.search.bonds import SCALE, bond_changes, bond_matrix, describe_changes, fragments
from mlip.search.isomorphism import fingerprint
from mlip.search.vibrations import format_frequency

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.search.vibrations import NormalModes

Kind: TypeAlias = Literal[
    "intended",
    "verified",
    "one-sided",
    "unintended",
    "same basin",
    "ends not reached",
    "not a first-order saddle",
    "saddle not converged",
    "no barrier",
    "path not converged",
    "identical ends",
    "different formulas",
    "different conditions",
    "atoms not matched",
    "end not converged",
    "failed",
]
"""What an attempt can come to, the most telling first."""

IMAGINARY: Final = 50.0
"""cm⁻¹; the mode of a saddle is more imaginary than this."""

NOISE: Final = 10.0
"""cm⁻¹; a mode less imaginary than this is taken for zero."""

CONFORMER: Final = 0.25
"""Å; structures with the same bonds and a larger RMSD are different conformers."""

SWEEP: Final = (0.95, 1.05)
"""Factors of the longest bond at which the verdict is looked at again."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome in a word and in a sentence.

    Attributes:
        kind: "intended" (the saddle connects the ends that were given) and "verified" (no ends were given:
            a saddle between two minima) are what was asked for; everything else is not.
        text: What was found, for people.
        robust: Whether bonds 5 % longer or shorter lead to the same kind; None where bonds played no part.
        same_conformers: Whether both ends are the very minima that were asked for, not other conformers;
            None unless intended or verified.
    """

    kind: Kind
    text: str
    robust: bool | None = None
    same_conformers: bool | None = None

    @property
    def reached(self) -> bool:
        """Whether what was asked for was found."""
        return self.kind in ("intended", "verified")


def judge_saddle(modes: NormalModes) -> Verdict | None:
    """The verdict if the structure is no first-order saddle, None if it is one."""
    frequencies = modes.frequencies
    clear, soft = int((frequencies < -IMAGINARY).sum()), frequencies[frequencies < -NOISE]
    if clear == 1 and len(soft) == 1:
        return None
    listed = ", ".join(format_frequency(float(frequency)) for frequency in soft)
    if len(soft) == 0:
        text = "the structure found has no imaginary mode: it is a minimum"
    elif len(soft) == 1:
        text = f"the only imaginary mode, {listed} cm⁻¹, is too soft to be told from a flat surface"
    else:
        text = f"the structure found has {len(soft)} imaginary modes, {listed} cm⁻¹, but must have one"
    return Verdict(kind="not a first-order saddle", text=text)


def judge_ends(reactant: Atoms, product: Atoms, ends: tuple[Atoms, Atoms]) -> Verdict:
    """Whether the minima that a path ends in are reactant and product, in either order."""
    kind = _kind(reactant, product, ends, SCALE)
    robust = all(_kind(reactant, product, ends, factor * SCALE) == kind for factor in SWEEP)
    found = [_name(end, reactant, product) for end in ends]
    if kind == "intended":
        matched = ends if found[0].startswith("the reactant") else ends[::-1]
        same = rmsd(matched[0], reactant) < CONFORMER and rmsd(matched[1], product) < CONFORMER
        text = "one imaginary mode, and the path down from it connects the reactant with the product"
        if not same:
            text += " (as other conformers)"
        return Verdict(kind=kind, text=text, robust=robust, same_conformers=same)
    if kind == "same basin":
        return Verdict(kind=kind, text=f"both sides of the saddle lead to {found[0]}", robust=robust)
    text = f"the saddle connects {found[0]} with {found[1]}, not the reactant with the product"
    return Verdict(kind=kind, text=text, robust=robust)


def _kind(reactant: Atoms, product: Atoms, ends: tuple[Atoms, Atoms], scale: float) -> Kind:
    sides = [_matches(end, reactant, product, scale) for end in ends]
    if set(sides) == {"reactant", "product"}:
        return "intended"
    if sides[0] is not None and sides[0] == sides[1]:
        return "same basin"
    if sides[0] is None and sides[1] is None:
        return "same basin" if same_minimum(*ends, scale=scale) else "unintended"
    return "one-sided"


def _matches(end: Atoms, reactant: Atoms, product: Atoms, scale: float) -> str | None:
    """ "reactant" or "product", or None if it is neither."""
    bonds = [bond_matrix(atoms, scale=scale) for atoms in (end, reactant, product)]
    like = [bool((bonds[0] == other).all()) for other in bonds[1:]]
    if all(like):  # the bonds cannot tell: conformers, inversions
        apart = rmsd(end, reactant), rmsd(end, product)
        if min(apart) > CONFORMER:
            return None
        return "reactant" if apart[0] <= apart[1] else "product"
    return "reactant" if like[0] else "product" if like[1] else None


def same_minimum(first: Atoms, second: Atoms, *, scale: float = SCALE) -> bool:
    """Whether two minima are one: the same bonds atom by atom, and nearly the same places."""
    bonds = bond_matrix(first, scale=scale), bond_matrix(second, scale=scale)
    return bool((bonds[0] == bonds[1]).all()) and rmsd(first, second) < CONFORMER


def _name(end: Atoms, reactant: Atoms, product: Atoms) -> str:
    """What an end of the path is, for people."""
    side = _matches(end, reactant, product, SCALE)
    if side is not None:
        return f"the {side}"
    bonds = bond_matrix(end), bond_matrix(reactant), bond_matrix(product)
    if (bonds[0] == bonds[1]).all() or (bonds[0] == bonds[2]).all():
        return "another conformer"
    prints = [fingerprint(end.numbers, graph) for graph in bonds]
    for known, other in zip(("reactant", "product"), prints[1:], strict=True):
        if prints[0] == other:
            return f"the {known} with equivalent atoms exchanged"
    broken, formed = bond_changes(bonds[1], bonds[0])
    number = fragments(bonds[0])
    pieces = "" if number == 1 else f" in {number} pieces"
    return f"another species{pieces} (from the reactant: {describe_changes(end, broken, formed)})"


def describe_connection(ends: tuple[Atoms, Atoms]) -> Verdict:
    """For a saddle found from a guess, without ends asked for: what its path connects."""
    bonds = bond_matrix(ends[0]), bond_matrix(ends[1])
    broken, formed = bond_changes(*bonds)
    if broken or formed:
        text = f"one imaginary mode; the path down from it: {describe_changes(ends[0], broken, formed)}"
        return Verdict(kind="verified", text=text, same_conformers=True)
    apart = rmsd(*ends)
    if apart < 0.1 * CONFORMER:
        return Verdict(kind="same basin", text="both sides of the saddle lead to the same minimum")
    text = f"one imaginary mode; the path down from it connects conformers {apart:.2f} Å apart"
    return Verdict(kind="verified", text=text, same_conformers=True)


def has_imaginary(modes: NormalModes) -> bool:
    """Whether a structure that should be a minimum is none."""
    return bool((np.asarray(modes.frequencies) < -IMAGINARY).any())
