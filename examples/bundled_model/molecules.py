"""Which molecules the bundled model learns from: small neutral closed-shell ones of H, C, N and O.

Four sources, all deterministic for one seed:

* common small molecules and functional groups, listed in molecules.txt (`CURATED`);
* every sensible constitution with up to five heavy atoms, by exhaustive graph growth (`enumerate_small`);
* a random sample of larger constitutions, up to nine heavy atoms, by mutation (`sample_larger`);
* hydrogen-bonded and other pairs of small molecules, and a few water clusters (`clusters`).

`LARGER` lists well-known molecules of ten and more heavy atoms. They are never trained on: they measure
how the model carries over to molecules larger than any it has seen.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rdkit import Chem, RDLogger
from rdkit.Chem import Mol
from rdkit.Chem.rdchem import BondType

RDLogger.DisableLog("rdApp.*")


def _sections(path: Path) -> dict[str, list[str]]:
    """SMILES of each `## section` of a text file."""
    parts = path.read_text(encoding="utf-8").split("## ")[1:]
    return {part.split()[0]: part.split()[1:] for part in parts}


LISTS = _sections(Path(__file__).with_name("molecules.txt"))
CURATED, LARGER, MONOMERS = LISTS["curated"], LISTS["larger"], LISTS["monomers"]
SUBSTITUENTS = LISTS["substituents"]  # attached by their first atom


# What a stable small molecule should not contain. Curated molecules are exempt.
FORBIDDEN = tuple(
    Chem.MolFromSmarts(smarts)
    for smarts in (
        "[#8]~[#8]",
        "[N,O;!a]~[N,O;!a]~[N,O;!a;!$([O-]);!$(O=[N+])]",  # chains of three heteroatoms, nitro groups apart
        "[#7]~[#7]~[#7]~[#7]~[#7]",
        "[N;H1]=N",
        "[a;r3]",
        "[a;r4]",
        "[#7,#8;r3]~[#7,#8;r3]",
        "[#7,#8;r4]~[#7,#8;r4]",
        "[r3]=[r3]",
        "[#7,#8;r3]~[r3]=*",
        "[r4]=[r4]~[r4]=[r4]",
        "*#[*;R]",
        "*=[*;R]=*",  # allenes in rings
        "*=*=*=*",
        "*=[#6]=*-[#7,#8]",
        "C#C-[N,O]",
        "C#CN=*",
        "[OH]C#N",
        "[CX4]([#7,#8])([#7,#8])[#7,#8]",
        "[CX4;r3,r4]([#7,#8])[#7,#8]",
        "[CX4]([OH,NH2])[#7,#8]",  # gem-diols, hemiaminals
        "[N;!$([N+](=O)[O-])]=O",  # nitroso
        "[NX3]([#7,#8])[#7,#8;!$([O-]);!$(O=[N+])]",
        "[OH][CX3]=[NH]",
        "[#7,#8]-[N+](=O)[O-]",
    )
)
WEAK_BOND = Chem.MolFromSmarts("[N,O;!a]-[N,O;!a;!$([O-])]")


@dataclass(frozen=True)
class Entry:
    """One molecule or cluster: canonical SMILES, leak-proof group, number of heavy atoms, and its split."""

    smiles: str
    group: str
    heavy: int
    kind: str
    split: str


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
    if any(mol.HasSubstructMatch(p) for p in FORBIDDEN) or len(mol.GetSubstructMatches(WEAK_BOND)) > 1:
        return False
    heavy = mol.GetNumHeavyAtoms()
    hetero = sum(a.GetAtomicNum() in (7, 8) for a in mol.GetAtoms())
    if heavy >= 4 and hetero > 0.67 * heavy:
        return False
    rings = [set(r) for r in mol.GetRingInfo().AtomRings()]
    small = [r for r in rings if len(r) < 5]
    if len(rings) > 3 or any(len(r) > 7 for r in rings) or len(small) > 1:
        return False
    bridged = [(a, b) for i, a in enumerate(rings) for b in rings[:i] if len(a & b) > 2]
    return not any(min(len(a), len(b)) < 5 for a, b in bridged)


def _free_hydrogens(mol: Mol) -> list[int]:
    return [a.GetTotalNumHs() if a.GetFormalCharge() == 0 else 0 for a in mol.GetAtoms()]


def _set_hydrogens_free(mol: Chem.RWMol) -> Chem.RWMol:
    """Let RDKit count hydrogens again (pyrrole-like [nH] included); the molecule must be kekulized."""
    for atom in mol.GetAtoms():
        if atom.GetFormalCharge() == 0:
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    return mol


def kekulized(smiles: str) -> Chem.RWMol:
    mol = Chem.RWMol(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


def _add_atom(mol: Chem.RWMol, at: int, atomic_number: int) -> Chem.RWMol:
    new = Chem.RWMol(mol)
    new.AddBond(at, new.AddAtom(Chem.Atom(atomic_number)), BondType.SINGLE)
    return _set_hydrogens_free(new)


def _saturations(mol: Chem.RWMol) -> Iterator[Chem.RWMol]:
    """All molecules with one more ring closure or one bond of a higher order."""
    free = _free_hydrogens(mol)
    atoms = [i for i, h in enumerate(free) if h]
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
    rings = mol.GetRingInfo().AtomRings()
    return len(rings) <= 2 and not mol.HasSubstructMatch(FORBIDDEN[0])


def enumerate_small(max_heavy: int) -> list[str]:
    """All sensible constitutions of C, N, O with at most `max_heavy` heavy atoms, as sorted SMILES."""
    level = {"C", "N", "O"}
    found: set[str] = set(level)
    for size in range(1, max_heavy + 1):
        pending = sorted(level)
        while pending:
            mol = kekulized(pending.pop())
            for new in _saturations(mol):
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
                    smiles = canonical(_add_atom(mol, at, z))
                    if smiles and _is_growable(Chem.MolFromSmiles(smiles)):
                        grown.add(smiles)
        level = grown
    return sorted(s for s in found if is_sensible(Chem.MolFromSmiles(s)))


def _close_ring(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    """A random ring closure; five- and six-membered rings are preferred ten to one."""
    free = _free_hydrogens(mol)
    distance = Chem.GetDistanceMatrix(mol)
    atoms = [i for i, h in enumerate(free) if h]
    pairs = [(i, j) for i in atoms for j in atoms if i < j and 2 <= distance[i, j] <= 6]
    if not pairs:
        return None
    weights = [10 if distance[i, j] in (4, 5) else 1 for i, j in pairs]
    i, j = rng.choices(pairs, weights)[0]
    new = Chem.RWMol(mol)
    new.AddBond(i, j, BondType.SINGLE)
    return _set_hydrogens_free(new)


def _swap_element(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    candidates = [a.GetIdx() for a in mol.GetAtoms() if a.GetFormalCharge() == 0]
    if not candidates:
        return None
    new = Chem.RWMol(mol)
    new.GetAtomWithIdx(rng.choice(candidates)).SetAtomicNum(rng.choice((6, 6, 7, 8)))
    return _set_hydrogens_free(new)


def _attach(mol: Chem.RWMol, fragment: str, rng: random.Random) -> Chem.RWMol | None:
    sites = [i for i, h in enumerate(_free_hydrogens(mol)) if h]
    if not sites:
        return None
    piece = kekulized(fragment)
    new = Chem.RWMol(Chem.CombineMols(mol, piece))
    new.AddBond(rng.choice(sites), mol.GetNumAtoms(), BondType.SINGLE)
    return _set_hydrogens_free(new)


def _mutate(mol: Chem.RWMol, rng: random.Random) -> Chem.RWMol | None:
    free = _free_hydrogens(mol)
    sites = [i for i, h in enumerate(free) if h]
    move = rng.choices(("atom", "fragment", "ring", "order", "swap"), (35, 30, 8, 17, 10))[0]
    if move == "atom" and sites:
        return _add_atom(mol, rng.choice(sites), rng.choices((6, 7, 8), (60, 20, 20))[0])
    if move == "fragment":
        return _attach(mol, rng.choice(SUBSTITUENTS), rng)
    if move == "ring":
        return _close_ring(mol, rng)
    if move == "swap":
        return _swap_element(mol, rng)
    bonds = [b.GetIdx() for b in mol.GetBonds() if free[b.GetBeginAtomIdx()] and free[b.GetEndAtomIdx()]]
    bonds = [b for b in bonds if mol.GetBondWithIdx(b).GetBondType() != BondType.TRIPLE]
    if not bonds:
        return None
    new = Chem.RWMol(mol)
    bond = new.GetBondWithIdx(rng.choice(bonds))
    bond.SetBondType(BondType.DOUBLE if bond.GetBondType() == BondType.SINGLE else BondType.TRIPLE)
    return _set_hydrogens_free(new)


def sample_larger(seeds: Iterable[str], quota: dict[int, int], seed: int) -> list[str]:
    """A random sample of sensible molecules by mutation, `quota[n]` of them with n heavy atoms.

    Half of the mutations start from `CURATED`, so that rings and common groups stay common.
    """
    rng = random.Random(seed)
    favoured = sorted(canonical(Chem.MolFromSmiles(s)) or s for s in CURATED)
    pool = sorted(set(seeds))
    known = set(pool)
    missing = dict(quota)
    out: list[str] = []
    for _ in range(2000 * sum(quota.values())):
        if not any(missing.values()):
            break
        mol: Chem.RWMol | None = kekulized(rng.choice(rng.choice((pool, favoured))))
        for _ in range(rng.randint(1, 5)):
            mol = _mutate(mol, rng) if mol is not None else None
            smiles = canonical(mol) if mol is not None else None
            mol = kekulized(smiles) if smiles else None
        if mol is None or not missing.get(mol.GetNumHeavyAtoms()):
            continue
        smiles = canonical(mol)
        if smiles is None or smiles in known or not is_sensible(Chem.MolFromSmiles(smiles)):
            continue
        known.add(smiles)
        missing[mol.GetNumHeavyAtoms()] -= 1
        out.append(smiles)
    return out


def clusters(num_pairs: int, seed: int) -> list[str]:
    """Pairs of `MONOMERS` (all pairs with water first) and a few water, methanol and ammonia clusters."""
    rng = random.Random(seed + 1)
    fixed = [".".join(("O", m)) for m in MONOMERS]
    others = [f"{a}.{b}" for i, a in enumerate(MONOMERS) for b in MONOMERS[: i + 1] if "O" not in (a, b)]
    pairs = fixed + rng.sample(others, max(0, min(num_pairs - len(fixed), len(others))))
    waters = ["O.O.O", "O.O.O.O", "O.O.O.O.O"]
    solvated = ["O.O.N", "O.O.CO", "O.O.NC=O", "O.O.OC=O", "O.O.CNC(C)=O"]
    return [*pairs[:num_pairs], *waters, "CO.CO.CO", "N.N.N", *solvated]


def group_of(smiles: str) -> str:
    """First InChIKey block of every component, sorted: the same for stereoisomers and mobile-H tautomers."""
    return ".".join(sorted(str(Chem.MolToInchiKey(Chem.MolFromSmiles(s)))[:14] for s in smiles.split(".")))


def split_groups(groups: dict[str, str], seed: int, *, valid: float, test: float) -> dict[str, str]:
    """Assign whole groups to splits; `groups` maps group to stratum. The stratum "tiny" is trained on."""
    strata: dict[str, list[str]] = {}
    for group, stratum in groups.items():
        strata.setdefault(stratum, []).append(group)
    out: dict[str, str] = {}
    for stratum, members in sorted(strata.items()):
        members.sort(key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).hexdigest())
        n_test, n_valid = round(test * len(members)), round(valid * len(members))
        for i, group in enumerate(members):
            held_out = "test" if i < n_test else "valid" if i < n_test + n_valid else "train"
            out[group] = "train" if stratum == "tiny" else held_out
    return out


def all_entries(
    *, quota: dict[int, int], num_pairs: int, seed: int, valid: float, test: float
) -> list[Entry]:
    """Every molecule and cluster, once each, with its split, in a random but reproducible order.

    Molecules of up to three heavy atoms are always trained on (water cannot be left to chance). `LARGER`
    becomes the split "larger". Two SMILES of one group (tautomers) stay together.
    """
    small = enumerate_small(min(quota, default=6) - 1)
    curated = [Chem.MolToSmiles(Chem.MolFromSmiles(s), isomericSmiles=False) for s in CURATED]
    single = dict.fromkeys([*curated, *small])
    single.update(dict.fromkeys(sample_larger(single, quota, seed)))
    heavy = {s: Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in single}
    groups = {s: group_of(s) for s in single}
    strata = {groups[s]: "tiny" if heavy[s] <= 3 else str(heavy[s]) for s in single}
    pairs = clusters(num_pairs, seed)
    groups.update({s: group_of(s) for s in pairs})
    strata.update({groups[s]: "tiny" if set(s) == {"O", "."} else "cluster" for s in pairs})
    splits = split_groups(strata, seed, valid=valid, test=test)
    out = [Entry(s, groups[s], heavy[s], "molecule", splits[groups[s]]) for s in single]
    heavy.update({s: Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in [*pairs, *LARGER]})
    out += [Entry(s, groups[s], heavy[s], "cluster", splits[groups[s]]) for s in pairs]
    out += [Entry(s, group_of(s), heavy[s], "molecule", "larger") for s in dict.fromkeys(LARGER)]
    random.Random(seed + 2).shuffle(out)
    return out
