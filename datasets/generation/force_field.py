"""Geometries from SMILES, and the cheap second derivatives that guide relaxations and thermal sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlip.datasets.generation.topology import Array
from mlip.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_KCAL_PER_MOL = 0.0433641  # eV; only guides, so a rounded value will do


class Rejected(RuntimeError):
    """A whole source of frames is dropped; the message says why."""


def parse(smiles: str) -> Mol:
    """RDKit molecule of a SMILES, without explicit hydrogens.

    Raises:
        InputError: RDKit cannot read it, or RDKit is not installed.
    """
    try:
        from rdkit import Chem, RDLogger
    except ModuleNotFoundError:
        raise InputError('molecules from SMILES need RDKit: pip install "polyad[labels]"') from None
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    mol = Chem.MolFromSmiles(smiles) if smiles.strip() else None
    if mol is None or not mol.GetNumAtoms():
        raise InputError(
            f"{smiles!r} is not a SMILES of a molecule: check valences, ring closures and brackets"
        )
    return mol


@contextmanager
def _rejecting(what: str) -> Iterator[None]:
    """What RDKit's C++ code refuses rejects the molecule, not the run."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected(f"{what}: RDKit failed") from error


def embed(mol: Mol, conformers: int, seed: int) -> tuple[Mol, list[Array]]:
    """ETKDG conformers with explicit hydrogens, relaxed with MMFF94 where it has parameters.

    Raises:
        Rejected: RDKit finds no geometry.

    Source: Riniker and Landrum 2015, doi:10.1021/acs.jcim.5b00654 (ETKDG).
    """
    from rdkit import Chem

    full = Chem.AddHs(mol)
    if full.GetNumAtoms() == 1:
        return full, [np.zeros((1, 3))]
    with _rejecting("conformers"):
        return full, _conformers(full, conformers, seed)


def _conformers(full: Mol, conformers: int, seed: int) -> list[Array]:
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.maxIterations = 200
    ids = list(rdDistGeom.EmbedMultipleConfs(full, conformers, parameters))
    if not ids:
        parameters.useRandomCoords = True
        ids = list(rdDistGeom.EmbedMultipleConfs(full, conformers, parameters))
    if not ids:
        raise Rejected("no conformer")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(full, maxIters=200)
    return [np.array(full.GetConformer(i).GetPositions()) for i in ids]


class ForceField:
    """MMFF94, or UFF where that has no parameters, of one molecule or of several side by side.

    Raises:
        Rejected: A molecule has parameters in neither.
    """

    def __init__(self, mols: Sequence[Mol]) -> None:
        self._parts = [_Part(m) for m in mols]

    def hessian(self, positions: Array, *, step: float = 1e-3) -> Array:
        """(3N, 3N) second derivatives, eV/Å², by central differences; none between molecules."""
        out = np.zeros((positions.size, positions.size))
        first = 0
        for part in self._parts:
            rows = slice(3 * first, 3 * (first + part.size))
            out[rows, rows] = part.hessian(positions[first : first + part.size].ravel(), step)
            first += part.size
        return out

    def minimised(self, positions: Array, *, steps: int) -> Array:
        """Positions of a single molecule after at most so many steps of minimisation."""
        (part,) = self._parts
        return part.minimised(positions, steps)


class _Part:
    """The force field of one molecule."""

    def __init__(self, mol: Mol) -> None:
        from rdkit import Chem
        from rdkit.Chem import rdForceFieldHelpers

        self.size = mol.GetNumAtoms()
        self._mol = Chem.Mol(mol)
        self._mol.RemoveAllConformers()
        conformer = Chem.Conformer(self.size)
        conformer.SetPositions(np.arange(3.0 * self.size).reshape(-1, 3))
        self._mol.AddConformer(conformer)
        with _rejecting("force field"):
            if rdForceFieldHelpers.MMFFHasAllMoleculeParams(self._mol):
                properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(self._mol)
                self._field = rdForceFieldHelpers.MMFFGetMoleculeForceField(self._mol, properties)
            elif rdForceFieldHelpers.UFFHasAllMoleculeParams(self._mol):
                # all pairs count, though none is near in the placeholder geometry
                self._field = rdForceFieldHelpers.UFFGetMoleculeForceField(self._mol, vdwThresh=1e6)
            else:
                raise Rejected("no force field")
            self._field.Initialize()

    def hessian(self, positions: Array, step: float) -> Array:
        out = np.empty((positions.size, positions.size))
        for k in range(positions.size):
            shift = np.zeros(positions.size)
            shift[k] = step
            out[k] = (self._gradient(positions + shift) - self._gradient(positions - shift)) / (2 * step)
        return 0.5 * (out + out.T) * _KCAL_PER_MOL

    def _gradient(self, positions: Array) -> Array:
        """kcal/mol/Å. `CalcGrad` alone takes distances cached before; `CalcEnergy` renews these."""
        flat = positions.tolist()
        self._field.CalcEnergy(flat)
        return np.array(self._field.CalcGrad(flat))

    def minimised(self, positions: Array, steps: int) -> Array:
        conformer = self._mol.GetConformer()
        conformer.SetPositions(np.ascontiguousarray(positions))
        with _rejecting("force field"):
            self._field.Minimize(maxIts=steps)
        return np.array(conformer.GetPositions())
