"""`BatchCalculator`: many structures in one call of a potential."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mlip.calculators.batch_graph import BatchNeighbors
from mlip.calculators.electrons import require_neutral_singlet
from mlip.calculators.surface import Evaluation, StructureError
from mlip.checkpoint import load_potential
from mlip.errors import InputError
from mlip.potential import Potential

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ase import Atoms

    from mlip.hessian import HessianMethod

MAX_ATOMS: Final = 4096
"""Atoms in one call of the potential; more structures are evaluated in several calls."""


class BatchCalculator:
    """A potential as a `Surface`: structures are evaluated together, each as if it were alone."""

    def __init__(
        self,
        model: str | Path | Potential = "default",
        *,
        device: str = "auto",
        dtype: str = "float64",
        max_atoms: int = MAX_ATOMS,
        hessian_method: HessianMethod | None = None,
    ) -> None:
        """Load the potential.

        Args:
            model: Name of a bundled model, path of a checkpoint, or a `Potential`, which is used as it is,
                where it is (`device` and `dtype` then play no part).
            device: As for `MLIPCalculator`.
            dtype: As for `MLIPCalculator`.
            max_atoms: Atoms in one call of the potential.
            hessian_method: "direct", "autograd" or "finite-difference"; the cheapest that the potential has
                unless given. See `Potential.hessian`.

        Raises:
            InputError: An argument is not as above, or the checkpoint cannot be used.
        """
        from mlip.calculators.ase_calculator import DTYPES, resolve_device

        if max_atoms < 1:
            raise InputError(f"`max_atoms` is {max_atoms} but must be at least 1")
        if isinstance(model, Potential):
            self.potential: Potential = model
        else:
            if dtype not in DTYPES:
                raise InputError(f'`dtype` is "{dtype}" but must be one of {", ".join(DTYPES)}')
            self.potential = load_potential(model, device=resolve_device(device), dtype=DTYPES[dtype])
            self.potential.requires_grad_(False).eval()
        self.max_atoms = max_atoms
        self.hessian_method: HessianMethod = hessian_method or self.potential.best_hessian_method()
        self._species = frozenset(self.potential.species)
        self._neighbors = BatchNeighbors(self.potential.cutoff, device=self.potential.device)

    def draft(self) -> BatchCalculator | None:
        """The same potential in single precision, about twice as fast, for what need not be exact; None if it
        is that already."""
        if self.potential.dtype != torch.float64:
            return None
        single = copy.deepcopy(self.potential).to(dtype=torch.float32)
        return BatchCalculator(single, max_atoms=self.max_atoms)

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        """See `Surface.evaluate`."""
        self._neighbors.keep(structures)
        results: list[Evaluation] = []
        for part in self._parts(structures):
            results += self._together(part, len(results), stress=stress, hessian=hessian)
        return results

    def _parts(self, structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
        part: list[Atoms] = []
        atoms = 0
        for structure in structures:
            if part and atoms + len(structure) > self.max_atoms:
                yield part
                part, atoms = [], 0
            part.append(structure)
            atoms += len(structure)
        if part:
            yield part

    def _together(
        self, structures: list[Atoms], first: int, *, stress: bool, hessian: bool
    ) -> list[Evaluation]:
        self._check(structures, first, stress=stress)
        graph = self._neighbors.graph(structures, first=first)
        output = self.potential(graph, forces=True, stress=stress, novelty=True)
        energies = output["energy"].detach().cpu().numpy()
        lost = np.flatnonzero(~np.isfinite(energies))
        if lost.size:
            formula = structures[lost[0]].get_chemical_formula()
            raise StructureError(
                f"the energy of {formula} is {energies[lost[0]]}: are atoms too close?",
                place=first + int(lost[0]),
            )
        ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
        forces = np.split(output["forces"].detach().cpu().to(torch.float64).numpy(), ends)
        novelty = None
        if "novelty" in output:
            novelty = np.split(output["novelty"].cpu().to(torch.float64).numpy(), ends)
        tensors = output["stress"].detach().cpu().to(torch.float64).numpy() if stress else None
        voigt = None if tensors is None else tensors[:, (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
        method = self.hessian_method if hessian else None
        hessians = self.potential.hessian(graph, method=method) if hessian else None
        return [
            Evaluation(
                energy=float(energies[k]),
                forces=forces[k],
                stress=None if voigt is None else voigt[k],
                hessian=None if hessians is None else hessians[k].cpu().to(torch.float64).numpy(),
                hessian_method=method,
                novelty=None if novelty is None else novelty[k],
            )
            for k in range(len(structures))
        ]

    def _check(self, structures: list[Atoms], first: int, *, stress: bool) -> None:
        """See that the potential can be asked for each structure."""
        for place, atoms in enumerate(structures, start=first):
            if len(atoms) == 0:
                raise StructureError("the structure has no atoms", place=place)
            try:
                if not self._species.issuperset(atoms.numbers.tolist()):
                    self.potential.check_species(torch.from_numpy(atoms.numbers).to(self.potential.device))
                require_neutral_singlet(atoms)
            except InputError as error:
                raise StructureError(str(error), place=place) from None
            if not np.isfinite(atoms.cell.array).all():
                raise StructureError("the cell is not finite: mend it", place=place)
            if stress and atoms.cell.rank < 3:
                raise StructureError(
                    "stress was asked for but the cell has no volume: give three independent cell vectors",
                    place=place,
                )
