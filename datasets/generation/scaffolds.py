"""Groups of molecules that stay together in a split, and a split that depends on nothing else in the set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

SMALLEST = 4
"""Molecules without rings and of fewer heavy atoms are always trained on: nobody would leave out water."""
_ORDER = ("train", "valid", "test")


def scaffold_of(smiles: str) -> str:
    """Bemis–Murcko scaffold of a molecule with rings; `acyclic:` and the constitution of one without.

    Acyclic tautomers that differ in mobile hydrogens alone count as the same.
    Source: Bemis and Murcko 1996, doi:10.1021/jm9602928; constitution: first block of the InChIKey.
    """
    mol = Chem.MolFromSmiles(smiles)
    Chem.RemoveStereochemistry(mol)
    scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=mol)
    return str(scaffold) if scaffold else f"acyclic:{Chem.MolToInchiKey(mol)[:14]}"


def split_of(
    smiles: str, shares: Mapping[str, float], *, seed: int, common: frozenset[str] = frozenset()
) -> str | None:
    """The part that a molecule belongs to, by a hash of its scaffold; "train" for what no other part gets.

    Of several molecules (dots), the part furthest from training counts: none of its frames may be trained on.
    None where one molecule is in `valid` and another in `test`.

    Args:
        smiles: Molecule or molecules.
        shares: Share of scaffolds of `valid` and `test`.
        seed: Of the hash.
        common: Scaffolds that are always trained on.
    """
    found = set()
    for part in smiles.split("."):
        scaffold = scaffold_of(part)
        small = scaffold.startswith("acyclic:") and Chem.MolFromSmiles(part).GetNumHeavyAtoms() < SMALLEST
        if small or scaffold in common:
            continue
        digest = hashlib.sha256(f"{seed}:{scaffold}".encode()).digest()
        draw = int.from_bytes(digest[:8], "little") / 2**64
        if draw < shares["test"]:
            found.add("test")
        elif draw < shares["test"] + shares["valid"]:
            found.add("valid")
    if len(found) > 1:
        return None
    return found.pop() if found else "train"
