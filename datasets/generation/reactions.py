"""Reacting geometries: hydrogen shifts, interpolated and refined paths, pairs of atoms to push together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlip.alignment import superposed
from mlip.datasets.generation.force_field import ForceField, Rejected
from mlip.datasets.generation.labelling import Labeller
from mlip.datasets.generation.relaxation import MAX_STEP, Labelled, Push, positive
from mlip.datasets.generation.topology import Array, Topology, distances

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_SHIFTS = (
    "[#1:1][#6,#7,#8,#16;!+;!-:2]-[*:3]=[#6,#7,#8,#16;!+;!-:4]",
    "[#1:1][#6,#7,#8,#16;!+;!-:2]-[*:3]=[*:5]-[*:6]=[#6,#7,#8,#16;!+;!-:4]",
)
"""1,3 and 1,5 shifts of hydrogen along alternating single and double bonds of one Kekulé structure."""


@dataclass(frozen=True, eq=False)
class Shift:
    """A hydrogen that moves from donor to acceptor; the product has its atoms in the same order."""

    hydrogen: int
    donor: int
    acceptor: int
    product: Mol


def hydrogen_shifts(mol: Mol) -> Iterator[Shift]:
    """1,3 and 1,5 hydrogen shifts of a molecule with explicit hydrogens, as between keto and enol."""
    from rdkit import Chem

    kekule = Chem.RWMol(mol)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    for smarts in _SHIFTS:
        for match in kekule.GetSubstructMatches(Chem.MolFromSmarts(smarts)):
            hydrogen, chain = match[0], match[1:]
            product = Chem.RWMol(kekule)
            product.RemoveBond(hydrogen, chain[0])
            product.AddBond(hydrogen, chain[-1], Chem.BondType.SINGLE)
            for k in range(len(chain) - 1):
                bond = product.GetBondBetweenAtoms(chain[k], chain[k + 1])
                bond.SetBondType(Chem.BondType.SINGLE if k % 2 else Chem.BondType.DOUBLE)
            for atom in product.GetAtoms():
                atom.SetNoImplicit(True)
                atom.SetNumExplicitHs(0)
                atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
            try:
                Chem.SanitizeMol(product)
            except (Chem.MolSanitizeException, ValueError):
                continue
            if not any(a.GetNumRadicalElectrons() for a in product.GetAtoms()):
                yield Shift(hydrogen, chain[0], chain[-1], product.GetMol())


def shifted_geometry(shift: Shift, positions: Array, rng: np.random.Generator) -> Array:
    """The product near the geometry of the reactant: the hydrogen set at the acceptor, then a force field.

    Raises:
        Rejected: There is no force field for the product.
    """
    from ase.data import covalent_radii

    numbers = np.array([a.GetAtomicNum() for a in shift.product.GetAtoms()])
    length = covalent_radii[1] + covalent_radii[numbers[shift.acceptor]]
    others = np.delete(positions, [shift.hydrogen, shift.acceptor], axis=0)
    directions = rng.normal(size=(60, 3))
    spots = positions[shift.acceptor] + length * directions / np.linalg.norm(directions, axis=1)[:, None]
    nearest = np.linalg.norm(spots[:, None] - others, axis=-1).min(axis=1)
    travel = np.linalg.norm(spots - positions[shift.hydrogen], axis=1)
    out = positions.copy()
    out[shift.hydrogen] = spots[np.argmax(np.minimum(nearest, 1.6) - 0.2 * travel)]
    return ForceField([shift.product]).minimised(out, steps=100)


def interpolated(reactant: Array, product: Array, images: int) -> list[Array]:
    """Images between two geometries, ends left out, whose interatomic distances go over evenly.

    Every image minimises Σ (d − d₀)² / d₀⁴ with d₀ the interpolated distances: the image-dependent pair
    potential, without springs. The product is turned onto the reactant before. Source: Smidstrup et al. 2014,
    doi:10.1063/1.4878664.
    """
    from scipy.optimize import minimize

    product = superposed(product, reactant)
    i, j = np.triu_indices(len(reactant), 1)
    first, last = distances(reactant)[i, j], distances(product)[i, j]
    out = []
    for share in np.linspace(0.0, 1.0, images + 2)[1:-1]:
        aim = (1 - share) * first + share * last
        weight = aim**-4

        def misfit(flat: Array, aim: Array = aim, weight: Array = weight) -> tuple[float, Array]:
            x = flat.reshape(-1, 3)
            along = x[i] - x[j]
            length = np.linalg.norm(along, axis=1)
            pull = (2 * weight * (length - aim) / np.maximum(length, 1e-6))[:, None] * along
            slope = np.zeros_like(x)
            np.add.at(slope, i, pull)
            np.add.at(slope, j, -pull)
            return float(weight @ (length - aim) ** 2), slope.ravel()

        start = (1 - share) * reactant + share * product
        start = start + 0.01 * np.sin(np.arange(3.0 * len(start))).reshape(-1, 3)  # no two atoms coincide
        found = minimize(misfit, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100})
        out.append(found.x.reshape(-1, 3))
    return out


def refined_path(
    label: Labeller, path: list[Array], ends: tuple[Array, Array], guess: Array, *, rounds: int
) -> list[list[Labelled]]:
    """Rounds of a nudged elastic band without springs: every image steps against the force across the path.

    Args:
        path: Images without ends.
        ends: Reactant and product, the latter turned onto the former.
        guess: (3N, 3N) second derivatives, eV/Å², that scale the steps.

    Returns:
        All images of every round, labelled, the interpolated ones first.

    Raises:
        LabelError: An image has no label.
    """
    values, vectors = np.linalg.eigh(positive(guess))
    out = []
    for _ in range(rounds):
        labelled = [Labelled(image, *label(image, near=k > 0)) for k, image in enumerate(path)]
        out.append(labelled)
        whole = [ends[0], *path, ends[1]]
        moved = []
        for k, frame in enumerate(labelled, start=1):
            tangent = (whole[k + 1] - whole[k - 1]).ravel()
            tangent /= np.linalg.norm(tangent)
            force = frame.forces.ravel() - (frame.forces.ravel() @ tangent) * tangent
            step = vectors @ ((vectors.T @ force) / values)
            step -= (step @ tangent) * tangent
            longest = np.linalg.norm(step.reshape(-1, 3), axis=1).max()
            moved.append(frame.positions + (step * min(1.0, MAX_STEP / longest)).reshape(-1, 3))
        path = moved
    return out


def random_push(rng: np.random.Generator, topology: Topology, positions: Array, *, between: int = 0) -> Push:
    """Two atoms to draw together (most often) or a bond to break.

    Args:
        rng: Random numbers.
        topology: Bonds.
        positions: (N, 3), Å.
        between: Atoms up to this index belong to one molecule and the others to another: only pairs across
            are drawn together. 0 for any pair.

    Raises:
        Rejected: There is no pair to push.
    """
    from ase.data import covalent_radii

    numbers, separation = topology.numbers, distances(positions)
    radii = covalent_radii[numbers][:, None] + covalent_radii[numbers]
    if not between and len(topology.bonds) and rng.uniform() < 0.3:
        i, j = (int(k) for k in topology.bonds[int(rng.integers(len(topology.bonds)))])
        return Push(i, j, -float(rng.uniform(3.0, 7.0)), (0.0, 2.4 * float(radii[i, j])))
    apart = ~topology.adjacency
    if between:
        side = np.arange(len(numbers)) < between
        apart &= side[:, None] != side
    else:  # 1,3 neighbours hardly react
        apart &= (topology.adjacency.astype(int) @ topology.adjacency.astype(int)) == 0
    pairs = np.argwhere(np.triu(apart, 1) & (separation < 4.5))
    if not len(pairs):
        raise Rejected("no pair to push")
    # pairs without hydrogens, and near ones, are likelier
    heavy = (numbers[pairs] > 1).sum(axis=1)
    weight = (1.0 + 2.0 * heavy) * np.exp(-separation[pairs[:, 0], pairs[:, 1]])
    i, j = (int(k) for k in pairs[int(rng.choice(len(pairs), p=weight / weight.sum()))])
    return Push(i, j, float(rng.uniform(1.5, 5.0)), (0.9 * float(radii[i, j]), 20.0))
