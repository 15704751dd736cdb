"""Errors of energies, forces and stresses, accumulated batch by batch without leaving the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from mlip.training.packed import Batch

QUANTITIES = ("energy", "energy_per_atom", "forces", "stress")


class ErrorSums:
    """Sums of absolute and squared errors.

    A label that is NaN does not count. Frame weights play no role here.

    Args:
        species: Atomic numbers for which force errors are also kept apart; empty for none.
        device: Where the sums live.
    """

    def __init__(self, species: Sequence[int] = (), *, device: torch.device | str = "cpu") -> None:
        self.species = tuple(species)
        rows = len(QUANTITIES) + len(self.species)
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

    def reduce(self) -> None:
        """Add up the sums of all processes."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)

    def state(self) -> Float[Tensor, "rows 3"]:
        """The sums: for each quantity the number of errors, of absolute and of squared errors."""
        return self._sums.clone()

    def restore(self, state: Float[Tensor, "rows 3"]) -> None:
        """Continue from what ``state`` returned."""
        self._sums.copy_(state)

    def result(self) -> dict[str, float]:
        """``<quantity>_rmse`` and ``<quantity>_mae`` of what was seen, also ``forces_rmse_<symbol>``.

        eV, eV per atom, eV/Å, eV/Å³.
        """
        out: dict[str, float] = {}
        names = [f"{name}_{{}}" for name in QUANTITIES]
        if self.species:
            from ase.data import chemical_symbols

            names += [f"forces_{{}}_{chemical_symbols[z]}" for z in self.species]
        for name, (count, absolute, squared) in zip(names, self._sums.tolist(), strict=True):
            if count > 0:
                out[name.format("rmse")] = (squared / count) ** 0.5
                out[name.format("mae")] = absolute / count
        return out


def _sums(error: Tensor, label: Tensor) -> Float[Tensor, " 3"]:
    known = ~torch.isnan(label)
    value = torch.where(known, error, 0.0).double()
    return torch.stack([known.sum().double(), value.abs().sum(), value.square().sum()])
