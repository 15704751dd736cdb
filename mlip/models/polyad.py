"""The flagship: many-body message passing on factored tensor products.

Each layer

1. mixes channels of every degree and takes the features to the factored space (`V` on nodes),
2. sums messages with the message operator: harmonics through `W`, radial functions from a spline,
3. comes back (`U` on nodes) and makes many-body products of the sums,
4. mixes, adds the old features, and reads an energy off the scalars.

With `product="cg"` the same backbone is MACE: exact Clebsch–Gordan messages and the full symmetric
contraction (Batatia et al. 2022, arXiv:2206.07697). With factored products the angular work is
that of "Tensor Decomposition Networks" (arXiv:2507.01131), exactly equivariant.
"""

from __future__ import annotations

import dataclasses
import math
from typing import cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mlip.errors import InputError
from mlip.kernels.halo import halo
from mlip.kernels.library import usable
from mlip.kernels.linear import project
from mlip.kernels.message import message
from mlip.kernels.sphere_product import COMPILED_CORRELATIONS, COMPILED_DEGREES
from mlip.models.adjoint import energy_and_gradient
from mlip.models.base import Model, ModelConfig
from mlip.models.edges import Edges
from mlip.models.tangent import differentiable_energy_and_gradient
from mlip.nn.hessian_head import HessianHead, HessianTerms, Pairs, normalised
from mlip.nn.linear import EquivariantLinear
from mlip.nn.node_product import SphereProduct
from mlip.nn.radial import ORDER, RadialKind, RadialTable, SplineBasis
from mlip.nn.repulsion import ZBLRepulsion
from mlip.o3.constants import ConstantModule
from mlip.o3.decompositions import factors
from mlip.o3.products import Product, ProductKind
from mlip.o3.symmetric import SymmetricContraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolyadConfig(ModelConfig):
    """Options of the flagship model."""

    num_channels: int = 64
    num_layers: int = 2
    lmax: int = 3
    """Largest degree of the harmonics and of the summed messages."""
    lmax_hidden: int = 1
    """Largest degree of the features between layers."""
    correlation: int = 3
    """Highest power in the node products; body order less one."""
    product: ProductKind = "cp"
    """Angular product: "cp" and "quadrature" (factored, exact), "cp-all" (TDN's, all paths) or "cg"."""
    radial: RadialKind = "network"
    """Radial functions: a "network" at the knots of the spline, or free "spline" coefficients."""
    num_knots: int = 20
    """Intervals of the radial spline."""
    radial_width: int = 64
    readout_width: int = 32
    zbl: bool = False
    """Add the Ziegler–Biersack–Littmark repulsion of screened nuclei at short range."""
    hessian_cutoff: float = 0.0
    """Å; up to it a head gives the blocks of the Hessian, 6 to 8 is good. Zero: no head."""
    hessian_channels: int = 16
    """Vectors and tensors of each atom that the blocks are made of."""
    hessian_coordinates: int = 32
    """Learned internal coordinates of each atom."""
    hessian_width: int = 64
    """Width of the head's networks."""


class FactoredMessage(ConstantModule):
    """Messages through a factored product; with `lmax_in` 0 the harmonics themselves are the factors."""

    weight: Tensor
    to_points: Tensor
    from_points: Tensor
    to_points_transposed: Tensor
    from_points_transposed: Tensor

    def __init__(self, config: PolyadConfig, lmax_in: int) -> None:
        super().__init__()
        scale = 1 / math.sqrt(config.avg_num_neighbors)
        self.scalars_in = lmax_in == 0
        self.num_weights = config.lmax + 1
        if self.scalars_in:
            self.register_constant("weight", torch.eye((config.lmax + 1) ** 2, dtype=torch.float64) * scale)
            return
        if config.product == "cg":
            raise ValueError("`product` is 'cg', which has no factors")
        matrices = factors(config.product, lmax_in, config.lmax, config.lmax)
        self.register_constant("weight", matrices.W)
        for name, matrix in (("to_points", matrices.V), ("from_points", matrices.U * scale)):
            self.register_constant(name, matrix)
            self.register_constant(f"{name}_transposed", matrix.T.contiguous())

    def forward(self, x: Tensor, table: Tensor, edges: Edges, num_receivers: int) -> Tensor:
        a = x if self.scalars_in else project(x, self.to_points, self.to_points_transposed)
        ends = (edges.row, edges.senders, edges.receivers)
        z = message(a, edges.y, edges.beta, table, self.weight, *ends, num_receivers)
        return z if self.scalars_in else project(z, self.from_points, self.from_points_transposed)


class ExactMessage(nn.Module):
    """Messages through the Clebsch–Gordan product with one radial function per path: MACE's own."""

    def __init__(self, config: PolyadConfig, lmax_in: int) -> None:
        super().__init__()
        self.product = Product("cg", lmax_in, config.lmax, config.lmax)
        self.num_weights = self.product.num_weights
        self.scale = 1 / math.sqrt(config.avg_num_neighbors)

    def forward(self, x: Tensor, table: Tensor, edges: Edges, num_receivers: int) -> Tensor:
        rows = edges.row[:, None] + torch.arange(ORDER, device=edges.row.device)
        weights = torch.einsum("ek,ekpc->epc", edges.beta, table[rows])
        messages = self.product(x.index_select(0, edges.senders), edges.y.unsqueeze(-1), weights)
        summed = messages.new_zeros(num_receivers, *messages.shape[1:])
        return summed.index_add(0, edges.receivers, messages) * self.scale


class Layer(nn.Module):
    """One message-passing layer."""

    def __init__(self, config: PolyadConfig, basis: SplineBasis, lmax_in: int, lmax_out: int) -> None:
        super().__init__()
        channels, num_species = config.num_channels, len(config.species)
        self.lmax_in, self.lmax_out = lmax_in, lmax_out
        exact = config.product == "cg"
        self.message = ExactMessage(config, lmax_in) if exact else FactoredMessage(config, lmax_in)
        self.radial = RadialTable(
            basis,
            num_species,
            self.message.num_weights,
            channels,
            kind=config.radial,
            width=config.radial_width,
        )
        self.up = EquivariantLinear(lmax_in, channels, channels)
        self.products: nn.Module
        if exact:
            self.products = nn.ModuleList(
                [
                    EquivariantLinear(config.lmax, channels, channels),
                    SymmetricContraction(config.lmax, lmax_out, config.correlation, channels, num_species),
                ]
            )
        else:
            self.products = SphereProduct(
                config.lmax, lmax_out, channels, num_species, correlation=config.correlation
            )
        self.down = EquivariantLinear(lmax_out, channels, channels)
        self.skip = EquivariantLinear(min(lmax_in, lmax_out), channels, channels)
        self.skip_scale = nn.Parameter(torch.ones(num_species, channels))

    def forward(self, h: Tensor, sent: Tensor, species: Tensor, edges: Edges) -> Tensor:
        """Features of the atoms that are computed, mixed features of all that send, species of the former."""
        a = self.message(sent, self.radial(), edges, h.shape[0])
        if isinstance(self.products, nn.ModuleList):
            b = self.products[1](self.products[0](a), species)
        else:
            b = self.products(a, species)
        kept = (self.skip.lmax + 1) ** 2
        if h.shape[1] > kept:
            h = h.narrow(1, 0, kept)
        skip = self.skip(h * self.skip_scale.index_select(0, species).unsqueeze(1))
        out = self.down(b)
        missing = out.shape[1] - kept
        return out + (torch.nn.functional.pad(skip, (0, 0, 0, missing)) if missing else skip)


class Readout(nn.Module):
    """Scalars to one energy per atom: a linear map, and in the last layer a small network beside it."""

    HIDDEN_MATRICES = ("hidden",)
    """Read by `mlip.training.optimizer`."""

    def __init__(self, channels: int, width: int, *, network: bool) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.randn(channels))
        self.network = network
        if network:
            self.hidden = nn.Parameter(torch.randn(channels, width))
            self.out = nn.Parameter(torch.randn(width))

    def forward(self, scalars: Float[Tensor, "atoms channels"]) -> Float[Tensor, " atoms"]:
        channels = scalars.shape[1]
        energy = scalars @ self.linear / channels
        if self.network:
            hidden = nn.functional.silu(scalars @ self.hidden / math.sqrt(channels))
            energy = energy + hidden @ self.out / self.out.shape[0]
        return energy


class _PolyadHessian(nn.Module):
    """The head for Hessians: one more layer, whose features reach degree 2, then blocks of pairs."""

    def __init__(self, config: PolyadConfig, basis: SplineBasis) -> None:
        super().__init__()
        for name in ("hessian_channels", "hessian_coordinates", "hessian_width"):
            if getattr(config, name) < 1:
                raise InputError(f"`{name}` is {getattr(config, name)} but must be at least 1")
        if config.hessian_cutoff < 0:
            raise InputError(
                f"`hessian_cutoff` is {config.hessian_cutoff} but must be positive, or 0 for none"
            )
        if config.lmax < 2:
            raise InputError(f"`lmax` is {config.lmax} but the head for Hessians needs at least 2")
        channels = config.num_channels
        self.scalars = EquivariantLinear(0, channels, channels)
        self.layer = Layer(config, basis, config.lmax_hidden if config.num_layers > 1 else 0, 2)
        self.blocks = HessianHead(
            config.hessian_cutoff,
            channels,
            len(config.species),
            channels=config.hessian_channels,
            coordinates=config.hessian_coordinates,
            width=config.hessian_width,
        )

    def forward(
        self, h: Tensor, scalars: Tensor, species: Tensor, edges: Edges, pairs: Pairs
    ) -> HessianTerms:
        """Features before the last layer, scalars after it."""
        h = normalised(h)
        first = h.narrow(1, 0, 1) + self.scalars(normalised(scalars.unsqueeze(1)))
        h = torch.cat([first, h.narrow(1, 1, h.shape[1] - 1)], dim=1)
        return self.blocks(self.layer(h, self.layer.up(h), species, edges), species, pairs)


class Polyad(Model):
    """The flagship model; see the head of this file."""

    Config = PolyadConfig
    config: PolyadConfig

    def __init__(self, config: PolyadConfig) -> None:
        super().__init__(config)
        for name in ("num_channels", "num_layers", "num_knots", "radial_width", "readout_width"):
            if getattr(config, name) < 1:
                raise InputError(f"`{name}` is {getattr(config, name)} but must be at least 1")
        if config.product not in get_args(ProductKind):
            known = ", ".join(get_args(ProductKind))
            raise InputError(f"`product` is {config.product!r} but must be one of {known}")
        if not 0 <= config.lmax_hidden <= config.lmax:
            raise InputError(
                f"`lmax_hidden` is {config.lmax_hidden} but must lie between 0 and `lmax` ({config.lmax})"
            )
        self.basis = SplineBasis(config.cutoff, config.num_knots)
        self.embedding = nn.Parameter(torch.randn(len(config.species), config.num_channels))
        degrees = [0] + [config.lmax_hidden] * (config.num_layers - 1) + [0]
        self.layers = nn.ModuleList(
            [Layer(config, self.basis, degrees[t], degrees[t + 1]) for t in range(config.num_layers)]
        )
        self.readouts = nn.ModuleList(
            [
                Readout(config.num_channels, config.readout_width, network=t == config.num_layers - 1)
                for t in range(config.num_layers)
            ]
        )
        self.repulsion = ZBLRepulsion(config.species, config.cutoff) if config.zbl else None
        self._weights = tuple(self.parameters())
        self.hessian_head = _PolyadHessian(config, self.basis) if config.hessian_cutoff else None
        self.hessian_cutoff = float(config.hessian_cutoff)

    def forward(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        *,
        num_owned: int | None = None,
    ) -> dict[str, Tensor]:
        """See `Model.forward`; also returns `node_features`, (atoms, channels), the last scalars."""
        return self._run(atomic_numbers, senders, receivers, edge_vectors, num_owned=num_owned)[0]

    def _run(
        self,
        atomic_numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        edge_vectors: Tensor,
        *,
        num_owned: int | None = None,
    ) -> tuple[dict[str, Tensor], Tensor, Edges, Tensor]:
        """Output of `forward`; species and edges, as a further layer needs them; features before the last
        layer."""
        species = self.species_index.index_select(0, atomic_numbers)
        y, beta, interval = self.basis(edge_vectors, self.config.lmax)
        pair = species.index_select(0, receivers) * len(self.config.species) + species.index_select(
            0, senders
        )
        edges = Edges(y, beta, pair * self.basis.rows + interval, senders, receivers)
        owned = species if num_owned is None else species.narrow(0, 0, num_owned)
        embedding = self.embedding.unsqueeze(1)
        h = embedding.index_select(0, owned)
        terms: list[Tensor] = []
        before = h
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            before, up = h, cast("Layer", layer).up
            if not terms:  # known from the species alone, of copies too
                sent = up(embedding).index_select(0, species)
            else:
                sent = up(h) if num_owned is None else halo(up(h), species.shape[0])
            h = layer(h, sent, owned, edges)
            terms.append(readout(h.select(1, 0)))
        energy = sum(terms[1:], terms[0]) * self.config.energy_scale
        if self.repulsion is not None:
            repulsion = self.repulsion(species, senders, receivers, edge_vectors)
            energy = energy + repulsion.narrow(0, 0, owned.shape[0])
        output = {"node_energy": energy, "node_features": h.select(1, 0)}
        return output, owned, edges, before

    def hessian_terms(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        pairs: Pairs,
    ) -> tuple[dict[str, Tensor], HessianTerms]:
        """See `Model.hessian_terms`."""
        if self.hessian_head is None:
            raise ValueError("`hessian_cutoff` is 0: this model has no head for Hessians")
        output, species, edges, before = self._run(atomic_numbers, senders, receivers, edge_vectors)
        return output, self.hessian_head(before, output["node_features"], species, edges, pairs)

    def energy_and_gradient(
        self,
        atomic_numbers: Int[Tensor, " atoms"],
        senders: Int[Tensor, " edges"],
        receivers: Int[Tensor, " edges"],
        edge_vectors: Float[Tensor, "edges 3"],
        *,
        for_weights: bool = False,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "edges 3"]] | None:
        """See `Model.energy_and_gradient`: by hand for factored products."""
        config = self.config
        covered = config.correlation in COMPILED_CORRELATIONS and config.lmax + 1 in COMPILED_DEGREES
        if not covered or config.product == "cg":
            return None
        traced = type(edge_vectors) is not Tensor or _get_current_dispatch_mode() is not None
        if traced or edge_vectors.device.type != "cpu" or not usable():
            return None
        if edge_vectors.requires_grad:
            return None
        graph = (atomic_numbers, senders, receivers, edge_vectors)
        if for_weights:
            return differentiable_energy_and_gradient(self, self._weights, graph)
        with torch.no_grad():
            return energy_and_gradient(self, *graph)
