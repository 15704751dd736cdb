"""What every model is."""

from __future__ import annotations

import dataclasses
import difflib
from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.errors import InputError
from mlip.nn.hessian_head import HessianTerms, Pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every model is told about the data."""

    species: tuple[int, ...]
    """Atomic numbers that the model knows, ascending."""
    cutoff: float = 5.0
    """Å."""
    avg_num_neighbors: float = 12.0
    """Mean number of edges per atom in the training data."""
    energy_scale: float = 1.0
    """eV; the root mean square force of the training data is a good value."""


class Model(nn.Module):
    """Maps a graph without positions to per-atom energies."""

    Config: type[ModelConfig]
    config: ModelConfig
    species_index: Tensor
    hessian_cutoff: float = 0.0
    """Å; of the pairs that `hessian_terms` needs. Zero where the model has no head for Hessians."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        species = tuple(int(z) for z in config.species)
        if not species or list(species) != sorted(set(species)) or min(species) < 1 or max(species) > 118:
            raise InputError(f"`species` is {species} but must be ascending atomic numbers from 1 to 118")
        for name in ("cutoff", "avg_num_neighbors", "energy_scale"):
            if not getattr(config, name) > 0:
                raise InputError(f"`{name}` is {getattr(config, name)} but must be positive")
        self.config = config
        table = torch.zeros(119, dtype=torch.int64)
        table[list(species)] = torch.arange(len(species))
        self.register_buffer("species_index", table, persistent=False)

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> Model:
        """Build from plain values, as read from a file.

        Raises:
            InputError: an option that the model does not have, or a value that it refuses.
        """
        known = [field.name for field in dataclasses.fields(cls.Config)]
        for key in values:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean `{close[0]}`?" if close else f"; it has: {', '.join(known)}"
                raise InputError(f"model option `{key}` is unknown{hint}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(cls.Config(**values))
        except (TypeError, ValueError) as error:
            raise InputError(f"model configuration: {error}") from error

    @abstractmethod
    def forward(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        *,
        num_owned: int | None = None,
    ) -> dict[str, Tensor]:
        """At least `node_energy` (atoms,), eV, without the energies of the isolated atoms.

        With `num_owned`, only so many atoms, the first, are computed; the others are copies of atoms that are
        computed elsewhere, send but do not receive, and get their features through `mlip.kernels.halo`.
        """

    def energy_and_gradient(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        *,
        for_weights: bool = False,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "edges 3"]] | None:
        """What `forward` returns and the gradient of the summed `node_energy`, eV/Å, without autograd; None
        where a model or the operands leave that to autograd.

        With `for_weights` energy and gradient can be differentiated once, by the weights, as a loss does;
        otherwise they cannot be differentiated."""
        return None

    def hessian_terms(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        pairs: Pairs,
    ) -> tuple[dict[str, Tensor], HessianTerms]:
        """What `forward` returns, and the second derivatives that the model's head reads off its features.

        Args:
            atomic_numbers: As for `forward`, like the next three.
            senders: Edges.
            receivers: Edges.
            edge_vectors: Edges, Å.
            pairs: All pairs up to `hessian_cutoff`, or those of some structures only.
        """
        raise NotImplementedError(f"{type(self).__name__} has no head for Hessians")
