r"""The loss: a weighted sum of energy, force and stress terms.

With $N$ structures of $n_s$ atoms in the batch (over all processes), frame weights $q_s$, a penalty $\rho$,

$$L = w_E \frac1N \sum_s q_s\,\rho\!\left(\frac{E_s - E_s^{ref}}{n_s}\right)
    + w_F \frac{1}{3\sum_s n_s} \sum_s q_s \sum_{i \in s,\alpha} \rho(F_{i\alpha} - F_{i\alpha}^{ref})
    + w_\sigma \frac{1}{9N} \sum_s q_s
      \sum_{\alpha\beta} \rho(\sigma_{\alpha\beta} - \sigma_{\alpha\beta}^{ref}).$$

$\rho(x)$ is $x^2$ (``mse``), $|x|$ (``mae``), or Huber's function divided by $\delta$ (``huber``):
$x^2/2\delta$ where $|x| < \delta$, else $|x| - \delta/2$, so that weights mean the same as for ``mae``.
Units: eV per atom, eV/Å, eV/Å³. A label that is NaN (forces of an isolated atom, stress of a
molecule) adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.training.config import Loss, max_weight
from mlip.training.packed import Batch
from mlip.training.schedule import weight_at


@dataclass(frozen=True)
class Weights:
    """Weights of the three terms at one moment of the run."""

    energy: float
    forces: float
    stress: float

    @classmethod
    def at(cls, config: Loss, fraction: float) -> Weights:
        """Weights when ``fraction`` of the run is done."""
        return cls(
            energy=weight_at(config.energy, fraction),
            forces=weight_at(config.forces, fraction),
            stress=weight_at(config.stress, fraction),
        )


@dataclass(frozen=True)
class Labels:
    """Which labels a run uses at any time."""

    energy: bool
    forces: bool
    stress: bool

    @classmethod
    def of(cls, config: Loss) -> Labels:
        """Those whose weight is above 0 at some time."""
        return cls(
            energy=max_weight(config.energy) > 0,
            forces=max_weight(config.forces) > 0,
            stress=max_weight(config.stress) > 0,
        )

    def names(self) -> list[str]:
        """Their names."""
        return [name for name in ("energy", "forces", "stress") if getattr(self, name)]


def penalty(x: Tensor, form: str, delta: float) -> Tensor:
    """The function rho of the module's docstring, element by element."""
    if form == "mse":
        return x.square()
    if form == "mae":
        return x.abs()
    return torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none", delta=delta) / delta


def batch_loss(
    output: Mapping[str, Tensor], batch: Batch, weights: Weights, config: Loss
) -> Float[Tensor, ""]:
    """This process's contribution to the loss: summed over processes, it is the loss of the whole step.

    Args:
        output: From ``Potential``: ``energy`` and, where they count, ``forces`` and ``stress``.
        batch: The labels.
        weights: Weights of the terms.
        config: Forms of the terms.
    """
    labels, q = Labels.of(config), batch.weight
    total = output["energy"].new_zeros(())
    if labels.energy:
        per_atom = _difference(output["energy"], batch.energy) / batch.graph.atoms_per_structure
        rho = penalty(per_atom, config.energy_form or config.form, config.huber_delta)
        total = total + weights.energy / batch.num_structures_in_step * (q * rho).sum()
    if labels.forces:
        rho = penalty(_difference(output["forces"], batch.forces), config.form, config.huber_delta).sum(dim=1)
        total = total + weights.forces / (3 * batch.num_atoms_in_step) * (q[batch.graph.batch] * rho).sum()
    if labels.stress:
        rho = penalty(_difference(output["stress"], batch.stress), config.form, config.huber_delta).sum(
            dim=(1, 2)
        )
        total = total + weights.stress / (9 * batch.num_structures_in_step) * (q * rho).sum()
    return total


def _difference(value: Tensor, label: Tensor) -> Tensor:
    """``value - label``, and 0 where there is no label."""
    return value - torch.where(torch.isnan(label), value.detach(), label)
