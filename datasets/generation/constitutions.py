"""Constitutions of neutral closed-shell organic molecules, grown atom by atom under valence rules.

`enumerate_small` lists all sensible ones of C, N and O up to a size, `sample_larger` draws a random sample by
mutation, in which F, P, S and Cl take part. Molecules are SMILES without stereo marks. The same arguments
give the same list.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rdkit import Chem, RDLogger
from rdkit.Chem import Mol
from rdkit.Chem.rdchem import BondType

RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]

# What a stable small molecule should not contain.
_FORBIDDEN = tuple(
    Chem.MolFromSmarts(smarts)
    for smarts in (
        "[#8]~[#8]",
        "[N,O;!a]~[N,O;!a]~[N,O;!a;!$([O-]);!$(O=[N+])]",  # chains of three heteroatoms, nitro groups apart
        "[#7]~[#7]~[#7]~[#7]~[#7]",
        "[N;H1]=N",
        "[a;r3]",
        "[a;r4]",
        "[#7,#8,#16,#15;r3]~[#7,#8,#16,#15;r3]",
        "[#7,#8;r4]~[#7,#8;r4]",
        "[r3]=[r3]",
        "[#7,#8,#16,#15;r3]~[r3]=*",
        "[r4]=[r4]~[r4]=[r4]",
        "*#[*;R]",
        "*=[*;R]=*",  # allenes in rings
        "*=*=*=*",
        "*=[#6]=*-[#7,#8,#9,#15,#16,#17]",
        "C#C-[N,O,P,F]",
        "C#CN=*",
        "[OH]C#N",
        "[CX4]([#7,#8,#16,#15,Cl])([#7,#8,#16,#15,Cl])[#7,#8]",
        "[CX4;r3,r4]([#7,#8,#16,F,Cl])[#7,#8,#16]",
        "[CX4]([OH,NH2,SH])[#7,#8,#16,Cl,#15]",  # gem-diols, hemiaminals and their like
        "[CX4]([F,Cl])[NX3;H1,H2]",
        "[N;!$([N+](=O)[O-])]=O",  # nitroso
        "[NX3]([#7,#8])[#7,#8;!$([O-]);!$(O=[N+])]",
        "[OH][CX3]=[NH]",
        "[#7,#8]-[N+](=O)[O-]",
        "[F,Cl]~[#7,#8,F,Cl]",
        "[F]~[S;X2,X3]",
        "[#16;X1,X2]~[#16]~[#16]",
        "[#15]~[#15]",
        "[#15]=[#6,#7,#15]",
        "[#15]#*",
        "[#16]#*",
        "[#16]=[#16]",
        "[#16;X3,X4]=[#6,#7,#16]",
        "[#16;X1]=[#7,#8]",
        "[#15;X3]=*",
        "[#16X2]=*",  # two-coordinate S(IV)
        "[#15]-[#16;X3,X4]",
        "[#16;X3,X4]-[#16]",
        "[#16;X2]-[OH,SH,NH2]",
        "[#16;X3](=O)(Cl)Cl",
        "[#16;X3][OH]",
        "[#15;X3]([OH,SH])",
        "[Cl][#16;X2][Cl]",
        "[#16;X1]=C[OH,SH]",
        "[s+,o+,S+,P+,p]",
        "[#15;H1,H2;X3]",
        "[#15;H1,H2]-[#7,#16]",
        "[#15;X3]-[#7,#16,F]",
        "[#15]-[#16;X2;R]",
        "[#15]-[#6]=[#7,#8,#16]",
        "[CX4;!$(C(F)F)]([F,Cl])[#7,#8,#16,#15]",
        "[NX2]=[C;!a]-[OH,SH]",
        "[NX2;H1]=[C;!$(C[NX3])]",
        "[NX2;H1]=C-[#16,#15,F,Cl]",
        "[#6;!a]=[#6;!a](-[#16,#15])-[OH,NH2,SH]",
        "[#7,#8,#16]-[#16;X2]-[#7,#8,#16,Cl]",
        "[#16;X2][Cl,F]",
        "O=C-[#8]-C(=[O,S])-[SH]",
    )
)
_WEAK_BOND = Chem.MolFromSmarts("[N,O,S;!a]-[N,O,S;!a;!$([O-]);!$([SX4]);!$([SX3])]")
_STRAINED = Chem.MolFromSmarts("[a;x3]~[a;r5,r6;x3]~[a;x3]")  # three fused aromatic atoms in a row
_HETERO = (7, 8, 9, 15, 16, 17)


def canonical(mol: Mol) -> str | None:
    """Canonical SMILES without stereo marks, or None where the valences do not work out."""
    copy = Chem.Mol(mol)
    try:
        Chem.SanitizeMol(copy)
    except (Chem.MolSanitizeException, ValueError):
        return None
    return str(Chem.MolToSmiles(copy, isomericSmiles=False))


def is_sensible(mol: Mol) -> bool:
    """Valence rules hold and nothing on the list of absurd groups and strained cages occurs."""
    if any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()) or Chem.GetFormalCharge(mol):
        return False
    if any(mol.HasSubstructMatch(p) for p in _FORBIDDEN) or len(mol.GetSubstructMatches(_WEAK_BOND)) > 1:
        return False
    heavy, elements = mol.GetNumHeavyAtoms(), [a.GetAtomicNum() for a in mol.GetAtoms()]
    hetero = sum(z in _HETERO for z in elements)
    if heavy >= 4 and hetero > 0.67 * heavy:
        return False
    if elements.count(15) > 1 or elements.count(16) > 2 or elements.count(9) > 4 or elements.count(17) > 3:
        return False
    rings = [set(r) for r in mol.GetRingInfo().AtomRings()]
    small = [r for r in rings if len(r) < 5]
    if len(rings) > 4 or any(len(r) > 8 for r in rings) or len(small) > 1:
        return False
    bridged = [(a, b) for i, a in enumerate(rings) for b in rings[:i] if len(a & b) > 2]
    return not bridged and sum(len(r) == 3 for r in rings) <= 1 and not mol.HasSubstructMatch(_STRAINED)


def kekulized(smiles: str) -> Chem.RWMol:
    """Editable Kekulé structure."""
    mol = Chem.RWMol(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


def enumerate_small(max_heavy: int) -> list[str]:
    """All sensible constitutions of C, N, O with at most `max_heavy` heavy atoms, sorted."""
    level = {"C", "N", "O"}
    found: set[str] = set(level)
    for size in range(1, max_heavy + 1):
        pending = sorted(level)
        while pending:
            for new in _saturations(kekulized(pending.pop())):
                smiles = canonical(new)
                if smiles and smiles not in level and _is_growable(Chem.MolFromSmiles(smiles)):
                    level.add(smiles)
                    pending.append(smiles)
        found |= level
        if size == max_heavy:
            break
        grown: set[str] = set()
        for parent in sorted(level):
            mol = kekulized(parent)
            for at, free in enumerate(_free_hydrogens(mol)):
                for z in (6, 7, 8) if free else ():
                    smiles = canonical(_with_atom(mol, at, z))
                    if smiles and _is_growable(Chem.MolFromSmiles(smiles)):
                        grown.add(smiles)
        level = grown
    return sorted(s for s in found if is_sensible(Chem.MolFromSmiles(s)))


def sample_larger(
    seeds: Iterable[str], substituents: Sequence[str], quota: Mapping[int, int], *, seed: int
) -> list[str]:
    """A random sample of sensible molecules by mutation of the seeds, `quota[n]` of them with n heavy atoms.

    Args:
        seeds: SMILES to begin with; none of them is returned. Seven in eight mutations start from them, so
            that common rings and groups stay common, the others from what was found.
        substituents: SMILES of groups to attach, by their first atom.
        quota: Fewer come out where mutation does not find enough in 3,000 attempts each.
        seed: Of the random numbers.
    """
    rng = random.Random(seed)
    pool = sorted({c for s in seeds if (c := canonical(Chem.MolFromSmiles(s)))})
    known, missing = set(pool), dict(quota)
    out: list[str] = []
    for _ in range(3000 * sum(quota.values())):
        if not any(missing.values()):
            break
        smiles: str | None = rng.choice(rng.choice((pool, pool, pool, out or pool)))
        for _ in range(rng.randint(1, 4)):
            mutant = _mutated(kekulized(smiles), substituents, rng) if smiles else None
            smiles = canonical(mutant) if mutant is not None else None
        if smiles is None or smiles in known:
            continue
        mol = Chem.MolFromSmiles(smiles)
        if not missing.get(mol.GetNumHeavyAtoms()) or not is_sensible(mol):
            continue
        known.add(smiles)
        missing[mol.GetNumHeavyAtoms()] -= 1
        out.append(smiles)
    return out


def _free_hydrogens(mol: Chem.RWMol) -> list[int]:
    return [a.GetTotalNumHs() if a.GetFormalCharge() == 0 else 0 for a in mol.GetAtoms()]


def _set_hydrogens_free(mol: Chem.RWMol) -> Chem.RWMol:
    """Let RDKit count hydrogens again (pyrrole-like [nH] included); the molecule must be kekulized."""
    for atom in mol.GetAtoms():
        if atom.GetFormalCharge() == 0:
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    return mol


def _with_atom(mol: Chem.RWMol, at: int, atomic_number: int, order: BondType = BondType.SINGLE) -> Chem.RWMol:
    new = Chem.RWMol(mol)
    new.AddBond(at, new.AddAtom(Chem.Atom(atomic_number)), order)
    return _set_hydrogens_free(new)


def _saturations(mol: Chem.RWMol) -> Iterator[Chem.RWMol]:
    """All molecules with one more ring closure or one bond of a higher order."""
    atoms = [i for i, h in enumerate(_free_hydrogens(mol)) if h]
    for k, i in enumerate(atoms):
        for j in atoms[:k]:
            new = Chem.RWMol(mol)
            bond = new.GetBondBetweenAtoms(i, j)
            if bond is None:
                new.AddBond(i, j, BondType.SINGLE)
            elif bond.GetBondType() == BondType.SINGLE:
                bond.SetBondType(BondType.DOUBLE)
            elif bond.GetBondType() == BondType.DOUBLE:
                bond.SetBondType(BondType.TRIPLE)
            else:
                continue
            yield _set_hydrogens_free(new)


def _is_growable(mol: Mol) -> bool:
    """Cheap pruning of the exhaustive growth; a subset of what `is_sensible` refuses."""
    return len(mol.GetRingInfo().AtomRings()) <= 2 and not mol.HasSubstructMatch(_FORBIDDEN[0])


def _closed(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    """A random ring closure; five- and six-membered rings are preferred ten to one."""
    free = _free_hydrogens(mol)
    distance = Chem.GetDistanceMatrix(mol)
    atoms = [i for i, h in enumerate(free) if h]
    pairs = [(i, j) for i in atoms for j in atoms if i < j and 2 <= distance[i, j] <= 6]
    if not pairs:
        return None
    i, j = rng.choices(pairs, [10 if distance[i, j] in (4, 5) else 1 for i, j in pairs])[0]
    new = Chem.RWMol(mol)
    new.AddBond(i, j, BondType.SINGLE)
    return _set_hydrogens_free(new)


def _swapped(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    """One atom made another element."""
    candidates = [a.GetIdx() for a in mol.GetAtoms() if a.GetFormalCharge() == 0]
    if not candidates:
        return None
    new = Chem.RWMol(mol)
    at = new.GetAtomWithIdx(rng.choice(candidates))
    at.SetAtomicNum(
        rng.choice(
            (9, 17) if at.GetDegree() == 1 and rng.random() < 0.3 else (6, 6, 6, 7, 7, 8, 8, 16, 16, 15)
        )
    )
    return _set_hydrogens_free(new)


def _attached(mol: Chem.RWMol, fragment: str, rng: random.Random) -> Chem.RWMol | None:
    sites = [i for i, h in enumerate(_free_hydrogens(mol)) if h]
    if not sites:
        return None
    new = Chem.RWMol(Chem.CombineMols(mol, kekulized(fragment)))
    new.AddBond(rng.choice(sites), mol.GetNumAtoms(), BondType.SINGLE)
    return _set_hydrogens_free(new)


def _oxidised(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    """=O (seldom =S on phosphorus) on a sulfur with two or three neighbours, or a phosphorus with three."""
    sites = [
        a.GetIdx()
        for a in mol.GetAtoms()
        if (a.GetAtomicNum() == 16 and a.GetDegree() in (2, 3) and a.GetTotalNumHs() == 0)
        or (a.GetAtomicNum() == 15 and a.GetDegree() == 3)
    ]
    if not sites:
        return None
    at = rng.choice(sites)
    sulfur = mol.GetAtomWithIdx(at).GetAtomicNum() == 15 and rng.random() < 0.2
    return _with_atom(mol, at, 16 if sulfur else 8, BondType.DOUBLE)


def _mutated(mol: Chem.RWMol, substituents: Sequence[str], rng: random.Random) -> Chem.RWMol | None:
    free = _free_hydrogens(mol)
    sites = [i for i, h in enumerate(free) if h]
    moves = ("atom", "fragment", "ring", "order", "swap", "oxide")
    move = rng.choices(moves, (30, 30, 8, 15, 12, 5))[0]
    if move == "atom" and sites:
        element = rng.choices((6, 7, 8, 9, 15, 16, 17), (55, 14, 14, 6, 1, 5, 5))[0]
        return _with_atom(mol, rng.choice(sites), element)
    if move == "fragment":
        return _attached(mol, rng.choice(substituents), rng)
    if move == "ring":
        return _closed(mol, rng)
    if move == "swap":
        return _swapped(mol, rng)
    if move == "oxide":
        return _oxidised(mol, rng)
    bonds = [b.GetIdx() for b in mol.GetBonds() if free[b.GetBeginAtomIdx()] and free[b.GetEndAtomIdx()]]
    bonds = [b for b in bonds if mol.GetBondWithIdx(b).GetBondType() != BondType.TRIPLE]
    if not bonds:
        return None
    new = Chem.RWMol(mol)
    bond = new.GetBondWithIdx(rng.choice(bonds))
    bond.SetBondType(BondType.DOUBLE if bond.GetBondType() == BondType.SINGLE else BondType.TRIPLE)
    return _set_hydrogens_free(new)
