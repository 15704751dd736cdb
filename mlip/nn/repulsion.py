"""Core repulsion of screened nuclei, so that atoms never fall into each other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.kernels.distance import polynomial_envelope, polynomial_envelope_slope
from mlip.o3.constants import ConstantModule

COULOMB = 14.399645478425668
"""e²/(4 π ε0), eV Å (CODATA 2018)."""


class ZBLRepulsion(ConstantModule):
    r"""Half the Ziegler–Biersack–Littmark energy of every edge, on its receiver, eV.

    $V = \frac{Z_1 Z_2 e^2}{4\pi\epsilon_0 r}\,\phi(r/a)\,f(r/r_m)$,
    $a = 0.46850/(Z_1^{0.23} + Z_2^{0.23})$ Å,
    $\phi(x) = 0.18175e^{-3.19980x} + 0.50986e^{-0.94229x} + 0.28022e^{-0.40290x} + 0.02817e^{-0.20162x}$,
    switched off by the polynomial envelope f at $r_m = \min(r_c, R_1 + R_2)$, R the covalent radii.

    Source: J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Matter, 1985.
    """

    pairs: Tensor
    """Of each pair of species: reach squared, 1/length, 1/reach, half the charges' energy at 1 Å."""
    amplitudes: Tensor
    decays: Tensor

    def __init__(self, species: tuple[int, ...], cutoff: float) -> None:
        super().__init__()
        from ase.data import covalent_radii

        z = torch.tensor(species, dtype=torch.float64)
        radii = torch.tensor([covalent_radii[n] for n in species], dtype=torch.float64)
        reach = (radii[:, None] + radii[None, :]).clamp(max=cutoff)
        rate = (z[:, None] ** 0.23 + z[None, :] ** 0.23) / 0.46850
        per_pair = [reach**2, rate, 1 / reach, 0.5 * COULOMB * z[:, None] * z[None, :]]
        self.num_species = len(species)
        self.register_constant("pairs", torch.stack(per_pair).flatten(1))
        self.register_constant("amplitudes", torch.tensor([0.18175, 0.50986, 0.28022, 0.02817]))
        self.register_constant("decays", torch.tensor([3.19980, 0.94229, 0.40290, 0.20162]))

    def forward(
        self,
        species: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
    ) -> Float[Tensor, " atoms"]:
        """Energy of each atom; `species` indexes the species given at construction."""
        pair = species.index_select(0, receivers) * self.num_species + species.index_select(0, senders)
        _, rate, per_reach, strength = self.pairs.index_select(1, pair).unbind(0)
        r = edge_vectors.norm(dim=-1)
        screened = (self.amplitudes * torch.exp(-self.decays * (r * rate)[:, None])).sum(-1)
        energy = strength / r * screened * polynomial_envelope(r * per_reach)
        return torch.zeros(species.shape[0], dtype=r.dtype, device=r.device).index_add(0, receivers, energy)

    def energy_and_gradient(
        self,
        species: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "edges 3"]]:
        """`forward` and the gradient of its sum, eV/Å, without autograd; few edges are short enough to
        matter."""
        pair = species.index_select(0, receivers) * self.num_species + species.index_select(0, senders)
        squared = edge_vectors.square().sum(1)
        near = (squared < self.pairs[0].index_select(0, pair)).nonzero().squeeze(1)
        if near.shape[0] == 0:
            return edge_vectors.new_zeros(species.shape[0]), torch.zeros_like(edge_vectors)
        _, rate, per_reach, strength = self.pairs.index_select(1, pair.index_select(0, near)).unbind(0)
        r = squared.index_select(0, near).sqrt()
        decays = self.decays.unsqueeze(1)
        terms = self.amplitudes.unsqueeze(1) * torch.exp(-decays * (r * rate))
        screened, slope = terms.sum(0), -(terms * decays).sum(0) * rate
        envelope = polynomial_envelope(r * per_reach)
        envelope_slope = polynomial_envelope_slope(r * per_reach) * per_reach
        strength = strength / r
        energy = strength * screened * envelope
        by_distance = strength * (slope * envelope + screened * envelope_slope) - energy / r
        gradient = torch.zeros_like(edge_vectors)
        gradient.index_copy_(0, near, (by_distance / r)[:, None] * edge_vectors.index_select(0, near))
        atoms = receivers.index_select(0, near)
        return energy.new_zeros(species.shape[0]).index_add(0, atoms, energy), gradient
