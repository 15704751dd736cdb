r"""The loss: a weighted sum of energy, force, stress and Hessian terms.

With $N$ structures of $n_s$ atoms in the batch (over all processes), frame weights $q_s$, a penalty $\rho$,

$$L = w_E \frac1N \sum_s q_s\,\rho\!\left(\frac{E_s - E_s^{ref}}{n_s}\right)
    + w_F \frac{1}{3\sum_s n_s} \sum_s q_s \sum_{i \in s,\alpha} \rho(F_{i\alpha} - F_{i\alpha}^{ref})
    + w_\sigma \frac{1}{9N} \sum_s q_s
      \sum_{\alpha\beta} \rho(\sigma_{\alpha\beta} - \sigma_{\alpha\beta}^{ref}),$$

and, with $M$ structures whose Hessian is labelled and $N - M$ others, $\langle\cdot\rangle$ a mean over
elements of a vector or matrix, so that large molecules count no more than small ones,

$$ + w_H \frac1M \sum_s q_s \langle\rho(H_s - H_s^{ref})\rangle
   + w_{sub} \frac1M \sum_s q_s \langle\rho((H_s - H_s^{ref}) U_s)\rangle
   + w_{hvp} \frac1{N-M} \sum_s q_s \langle\rho(H_s v_s - \nabla\nabla E_s v_s)\rangle.$$

$H$ is that of the model's head; $U$ are unit displacements along the lowest vibrations of the label, rigid
motions left out; $v$ are random displacements, a normal number for each coordinate, and $\nabla\nabla E\,v$
comes from differentiating the model's own energy, to which nothing is passed back: so the head learns from
frames that have forces alone.

$\rho(x)$ is $x^2$ (``mse``), $|x|$ (``mae``), or Huber's function divided by $\delta$ (``huber``):
$x^2/2\delta$ where $|x| < \delta$, else $|x| - \delta/2$, so that weights mean the same as for ``mae``.
Units: eV per atom, eV/Å, eV/Å³, eV/Å². A label that is NaN (forces of an isolated atom, stress of a
molecule) adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.training.config import Loss, max_weight
from mlip.training.hessians import product_errors, split_matrices
from mlip.training.packed import Batch
from mlip.training.schedule import weight_at


@dataclass(frozen=True)
class Weights:
    """Weights of the terms at one moment of the run."""

    energy: float
    forces: float
    stress: float
    hessian: float = 0.0
    hessian_subspace: float = 0.0
    hvp: float = 0.0

    @classmethod
    def at(cls, config: Loss, fraction: float) -> Weights:
        """Weights when ``fraction`` of the run is done."""
        return cls(**{field.name: weight_at(getattr(config, field.name), fraction) for field in fields(cls)})


@dataclass(frozen=True)
class Labels:
    """Which labels a run uses at any time."""

    energy: bool
    forces: bool
    stress: bool
    hessian: bool = False
    hvp: bool = False

    @classmethod
    def of(cls, config: Loss, *, frozen: bool = False) -> Labels:
        """Those whose weight is above 0 at some time; with a frozen backbone none but Hessians."""
        return cls(
            energy=max_weight(config.energy) > 0 and not frozen,
            forces=max_weight(config.forces) > 0 and not frozen,
            stress=max_weight(config.stress) > 0 and not frozen,
            hessian=max_weight(config.hessian) > 0 or max_weight(config.hessian_subspace) > 0,
            hvp=max_weight(config.hvp) > 0,
        )


def penalty(x: Tensor, form: str, delta: float) -> Tensor:
    """The function rho of the module's docstring, element by element."""
    if form == "mse":
        return x.square()
    if form == "mae":
        return x.abs()
    return torch.nn.functional.huber_loss(x, torch.zeros_like(x), reduction="none", delta=delta) / delta


def batch_loss(
    output: Mapping[str, Tensor], batch: Batch, weights: Weights, config: Loss, labels: Labels
) -> Float[Tensor, ""]:
    """This process's contribution to the loss: summed over processes, it is the loss of the whole step.

    Args:
        output: From ``Potential``: ``energy`` and, where they count, ``forces`` and ``stress``, ``hessian``
            and ``hessian_of``; beside these ``displacement`` and ``hvp``, the Hessian of the energy times
            it.
        batch: The labels.
        weights: Weights of the terms.
        config: Forms of the terms.
        labels: Which of them count.
    """
    q = batch.weight
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
    if "hessian" in output:
        total = total + _hessian_terms(output, batch, weights, config)
    return total


def _hessian_terms(
    output: Mapping[str, Tensor], batch: Batch, weights: Weights, config: Loss
) -> Float[Tensor, ""]:
    counts, labelled = batch.graph.atoms_per_structure, batch.hessians
    which = output["hessian_of"]
    found = dict(zip(which.tolist(), split_matrices(output["hessian"], counts[which]), strict=True))

    def mean(error: Tensor) -> Tensor:
        return penalty(error, config.hessian_form, config.huber_delta).mean()

    total = output["energy"].new_zeros(())
    rows = zip(labelled.structures.tolist(), labelled.matrices, labelled.low_modes, strict=True)
    for s, label, modes in rows:
        error = found[s] - label
        term = weights.hessian * mean(error) + weights.hessian_subspace * mean(error @ modes)
        total = total + batch.weight[s] * term / labelled.num_in_step
    if "hvp" in output:
        others = max(1, batch.num_structures_in_step - labelled.num_in_step)
        for s, error in enumerate(product_errors(found, output, counts)):
            if s not in labelled.structures:
                total = total + batch.weight[s] * weights.hvp * mean(error) / others
    return total


def _difference(value: Tensor, label: Tensor) -> Tensor:
    """``value - label``, and 0 where there is no label."""
    return value - torch.where(torch.isnan(label), value.detach(), label)
