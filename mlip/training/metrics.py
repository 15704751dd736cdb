"""Errors of energies, forces, stresses and Hessians, accumulated batch by batch without leaving the
device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from mlip.training import hessians
from mlip.training.packed import Batch

QUANTITIES = ("energy", "energy_per_atom", "forces", "stress")


class ErrorSums:
    """Sums of absolute and squared errors.

    A label that is NaN does not count. Frame weights play no role here. Errors of a Hessian are means over
    its elements; molecules then count alike.

    Args:
        species: Atomic numbers for which force errors are also kept apart; empty for none.
        modes: Also compare eigenvalues, modes and frequencies of Hessians.
        device: Where the sums live.
    """

    def __init__(
        self, species: Sequence[int] = (), *, modes: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.species = tuple(species)
        self._modes = modes
        self._first_hessian = len(QUANTITIES) + len(self.species)
        rows = self._first_hessian + len(hessians.QUANTITIES) + 1
        self._sums = torch.zeros(rows, 3, dtype=torch.float64, device=device)
        self._index = torch.full((120,), -1, dtype=torch.int64, device=device)
        for i, z in enumerate(self.species):
            self._index[z] = i

    @torch.no_grad()
    def add(self, output: Mapping[str, Tensor], batch: Batch) -> None:
        """Take in one batch; ``forces`` and ``stress`` of the output may be absent."""
        labels = {"energy": batch.energy, "forces": batch.forces, "stress": batch.stress}
        errors = {name: output[name].detach() - label for name, label in labels.items() if name in output}
        errors["energy_per_atom"] = errors["energy"] / batch.graph.atoms_per_structure
        labels["energy_per_atom"] = batch.energy
        for row, name in enumerate(QUANTITIES):
            if name in errors:
                self._sums[row] += _sums(errors[name], labels[name])
        if self.species and "forces" in errors:
            kinds = self._index[batch.graph.atomic_numbers]
            for i in range(len(self.species)):
                mine = kinds == i
                self._sums[len(QUANTITIES) + i] += _sums(errors["forces"][mine], batch.forces[mine])
        if "hessian" in output:
            self._add_hessians(output, batch)

    def _add_hessians(self, output: Mapping[str, Tensor], batch: Batch) -> None:
        which = output["hessian_of"]
        matrices = hessians.split_matrices(output["hessian"], batch.graph.atoms_per_structure[which])
        found = dict(zip(which.tolist(), matrices, strict=True))
        for s, label in zip(batch.hessians.structures.tolist(), batch.hessians.matrices, strict=True):
            if self._modes:
                errors = hessians.differences(batch.structure(s), *(_numpy(h) for h in (found[s], label)))
            else:
                error = found[s] - label
                errors = [(float(error.abs().mean()), float(error.square().mean()))]
            rows = torch.tensor([(1.0, *pair) if pair[0] == pair[0] else (0.0, 0.0, 0.0) for pair in errors])
            self._sums[self._first_hessian : self._first_hessian + len(rows)] += rows.to(self._sums)
        if "hvp" in output:
            for error in hessians.product_errors(found, output, batch.graph.atoms_per_structure):
                row = torch.stack([torch.ones_like(error[0]), error.abs().mean(), error.square().mean()])
                self._sums[-1] += row.double()

    def reduce(self) -> None:
        """Add up the sums of all processes."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)

    def state(self) -> Float[Tensor, "rows 3"]:
        """The sums: for each quantity the number of errors, of absolute and of squared errors."""
        return self._sums.clone()

    def restore(self, state: Float[Tensor, "rows 3"]) -> None:
        """Continue from what ``state`` returned."""
        self._sums[: len(state)].copy_(state)

    def result(self) -> dict[str, float]:
        """``<quantity>_rmse`` and ``<quantity>_mae`` of what was seen, also ``forces_rmse_<symbol>``.

        eV, eV per atom, eV/Å, eV/Å³; those of Hessians as `mlip.training.hessians.QUANTITIES` says.
        """
        out: dict[str, float] = {}
        names = [f"{name}_{{}}" for name in QUANTITIES]
        if self.species:
            from ase.data import chemical_symbols

            names += [f"forces_{{}}_{chemical_symbols[z]}" for z in self.species]
        names += [f"{name}_{{}}" for name in (*hessians.QUANTITIES, "hvp")]
        for name, (count, absolute, squared) in zip(names, self._sums.tolist(), strict=True):
            if count > 0:
                out[name.format("rmse")] = (squared / count) ** 0.5
                out[name.format("mae")] = absolute / count
        return out


def _sums(error: Tensor, label: Tensor) -> Float[Tensor, " 3"]:
    known = ~torch.isnan(label)
    value = torch.where(known, error, 0.0).double()
    return torch.stack([known.sum().double(), value.abs().sum(), value.square().sum()])


def _numpy(matrix: Tensor) -> np.ndarray:
    return matrix.detach().double().cpu().numpy()
