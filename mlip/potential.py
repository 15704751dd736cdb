"""`Potential`: the one place that adds atomic reference energies and differentiates.

Second derivatives are in `mlip.hessian`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mlip.domain import Domain
from mlip.errors import InputError
from mlip.graph import AtomGraph
from mlip.hessian import (
    Curvature,
    HessianMethod,
    autograd_hessian,
    direct_hessian,
    direct_image_blocks,
    finite_difference_hessian,
)
from mlip.hessian_assembly import ImageBlocks, assemble, find_pairs
from mlip.models.base import Model
from mlip.nn.hessian_head import HessianTerms, Pairs

T = TypeVar("T")


class Potential(nn.Module):
    """A model, the energies of its isolated atoms, and what follows by differentiation.

    `E = sum E0[Z] + sum of node energies`, never divided by anything; summed in float64 whatever
    the type of the model, so that large total energies keep their last meV.

    Args:
        model: A model that maps edge vectors to node energies.
        e0s: Energy of the isolated atom of each species of the model, eV, by atomic number.
        metadata: Anything that should travel with the model (level of theory, licence, ...).

    Raises:
        InputError: an energy is missing or not finite.
    """

    e0s: Tensor
    known: Tensor

    def __init__(
        self, model: Model, e0s: Mapping[int, float], *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.species = tuple(int(z) for z in model.config.species)
        self.cutoff = float(model.config.cutoff)
        self.metadata: dict[str, Any] = dict(metadata or {})
        missing = [z for z in self.species if z not in e0s]
        if missing:
            raise InputError(
                f"`e0s` lacks atomic number(s) {missing}; give one energy (eV) for each of {self.species}"
            )
        table = torch.zeros(119, dtype=torch.float64)
        known = torch.zeros(119, dtype=torch.bool)
        for z in self.species:
            table[z] = float(e0s[z])
            known[z] = True
        if not torch.isfinite(table).all():
            raise InputError(f"`e0s` is {dict(e0s)} but every energy must be finite")
        self.domain: Domain | None = None
        """What the training atoms were like; None where the model does not say."""
        self.register_buffer("e0s", table, persistent=False)
        self.register_buffer("known", known, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Potential:
        """Conversions keep the reference energies in float64."""
        e0s = self.e0s
        super()._apply(fn, recurse)
        self.e0s = e0s.to(self.known.device)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return self.known.device

    def isolated_energies(self) -> dict[int, float]:
        """E0 of each species, eV, by atomic number."""
        return {z: float(self.e0s[z]) for z in self.species}

    def check_species(self, atomic_numbers: Tensor) -> None:
        """Raise `InputError` naming the elements that the model does not know."""
        from ase.data import chemical_symbols

        known = self.known.index_select(0, atomic_numbers.clamp(0, 118))
        if not bool(known.all()):
            unknown = sorted({int(z) for z in atomic_numbers[~known]})
            names = ", ".join(chemical_symbols[z] if 0 < z < 119 else str(z) for z in unknown)
            mine = " ".join(chemical_symbols[z] for z in self.species)
            raise InputError(f"element(s) {names} are unknown to this model; it was trained on {mine}")

    def forward(
        self,
        graph: AtomGraph,
        *,
        forces: bool = True,
        stress: bool = False,
        novelty: bool = False,
        hessian_of: Int[Tensor, " chosen"] | None = None,
        create_graph: bool = False,
    ) -> dict[str, Tensor]:
        """Energies of a batch of structures and their derivatives.

        Args:
            graph: Structures with edges up to the cutoff (longer ones contribute nothing).
            forces: Also return `forces`.
            stress: Also return `stress`.
            novelty: Also return `novelty`, where the potential has a `domain`.
            hessian_of: Structures whose direct Hessian is also returned, ascending, as training wants it; see
                `hessian` for other uses.
            create_graph: Keep the graph of the derivatives, for training and second derivatives.

        Returns:
            `energy` (structures,) and `node_energy` (atoms,), float64, eV; `forces` (atoms, 3), eV/Å;
            `stress` (structures, 3, 3), eV/Å³, $\\sigma = V^{-1} \\partial E/\\partial\\epsilon$, tension
            positive, as in ASE; `novelty` (atoms,), see `mlip.domain`; `hessian`, eV/Å², the matrices one
            after another, row by row, and `hessian_of`.

        Raises:
            InputError: an element that the model does not know; stress of a cell without volume.
        """
        if _in_inference(graph) and (forces or stress):
            options: dict[str, Any] = {"forces": forces, "stress": stress, "novelty": novelty}
            options |= {"hessian_of": hessian_of, "create_graph": create_graph}
            return _outside_inference(graph, lambda g: self.forward(g, **options))
        given, graph = graph, self._prepared(graph)
        pairs = None if hessian_of is None else self._pairs(graph, hessian_of)
        differentiate = forces or stress
        keep = create_graph or (torch.is_grad_enabled() and self.training)
        with torch.set_grad_enabled(differentiate or torch.is_grad_enabled()):
            vectors = given.edge_vectors().to(self.dtype)  # differences first: they lose less by rounding
            edges = (graph.atomic_numbers, graph.senders, graph.receivers)
            by_hand = None
            if differentiate:
                by_hand = self.model.energy_and_gradient(*edges, vectors, for_weights=keep)
            if by_hand is not None:
                output, gradient = by_hand
                terms = self._terms(edges, vectors, pairs)[1] if pairs is not None else None
            else:
                if differentiate and not vectors.requires_grad:
                    vectors = vectors.detach().requires_grad_()
                output, terms = self._terms(edges, vectors, pairs)
                if differentiate:
                    gradient = self.edge_gradient(output["node_energy"], vectors, create_graph)
            node_energy = output["node_energy"].double() + self.e0s.index_select(0, graph.atomic_numbers)
            energy = node_energy.new_zeros(graph.num_structures).index_add(0, graph.batch, node_energy)
            result = {"energy": energy, "node_energy": node_energy}
            if forces:
                result["forces"] = self._forces(graph, gradient)
            if stress:
                result["stress"] = self._stress(graph, vectors, gradient)
            if hessian_of is not None and pairs is not None and terms is not None:
                matrices = assemble(terms, pairs, graph)
                chosen = (matrices[s].reshape(-1) for s in hessian_of.tolist())
                result["hessian"] = torch.cat([vectors.new_zeros(0), *chosen])
                result["hessian_of"] = hessian_of
        if novelty and self.domain is not None:
            species = self.model.species_index.index_select(0, graph.atomic_numbers)
            odd, periodic = (
                kind.index_select(0, graph.batch) for kind in (graph.odd_electrons, graph.meets_images)
            )
            features = output["node_features"].detach()
            result["novelty"] = self.domain(features, species, odd=odd, periodic=periodic)
        if not keep:
            result = {key: value.detach() for key, value in result.items()}
        return result

    def _pairs(self, graph: AtomGraph, structures: Int[Tensor, " chosen"]) -> Pairs:
        """Pairs that the head for Hessians needs, of some structures."""
        wanted = torch.zeros(graph.num_structures, dtype=torch.bool, device=graph.positions.device)
        wanted[structures] = True
        return find_pairs(graph, self.model.hessian_cutoff, wanted=wanted)

    def _terms(
        self, edges: tuple[Tensor, Tensor, Tensor], vectors: Tensor, pairs: Pairs | None
    ) -> tuple[dict[str, Tensor], HessianTerms | None]:
        """Output of the model, and of its head for Hessians where there are pairs."""
        if pairs is None:
            return self.model(*edges, vectors), None
        return self.model.hessian_terms(*edges, vectors, pairs)

    @property
    def has_direct_hessian(self) -> bool:
        """Whether the model has a head for Hessians."""
        return self.model.hessian_cutoff > 0

    def best_hessian_method(self) -> HessianMethod:
        """ "direct" if the model has a head for Hessians, else "autograd"."""
        return "direct" if self.has_direct_hessian else "autograd"

    def hessian(
        self, graph: AtomGraph, *, method: HessianMethod | None = None
    ) -> list[Float[Tensor, "coordinates coordinates"]]:
        """Second derivatives of the energy with respect to the positions, at fixed cell.

        Args:
            graph: As for `forward`.
            method: "direct", the model's own head, at the cost of an energy; "autograd", exact; or
                "finite-difference", of forces. By default `best_hessian_method()`.

        Returns:
            For each structure a symmetric matrix (3 atoms, 3 atoms), eV/Å², coordinates in the order x y z
            of atom 0, x y z of atom 1, ...

        Raises:
            InputError: an element that the model does not know; a method that there is not, or "direct"
                of a model without the head.
        """
        method = self.best_hessian_method() if method is None else method
        if method not in get_args(HessianMethod):
            known = ", ".join(get_args(HessianMethod))
            raise InputError(f"`method` is {method!r} but must be one of {known}")
        if method == "direct" and not self.has_direct_hessian:
            raise InputError(
                "this model has no head for direct Hessians; use the method autograd, or train a head"
            )
        if _in_inference(graph):
            return _outside_inference(graph, lambda g: self.hessian(g, method=method))
        graph = self._prepared(graph)
        make: dict[HessianMethod, Callable[..., list[Tensor]]] = {
            "direct": direct_hessian,
            "autograd": autograd_hessian,
            "finite-difference": finite_difference_hessian,
        }
        return make[method](self, graph)

    def hessian_images(self, graph: AtomGraph) -> ImageBlocks:
        """Second derivatives of one periodic structure by the model's head, image by image, as phonons need.

        Args:
            graph: One structure, as for `forward`.

        Raises:
            InputError: several structures; an element that the model does not know; a model without the head.
        """
        if graph.num_structures != 1:
            raise InputError(f"`graph` has {graph.num_structures} structures but must have one")
        if not self.has_direct_hessian:
            raise InputError(
                "this model has no head for direct Hessians; displace atoms of a supercell instead"
            )
        if _in_inference(graph):
            return _outside_inference(graph, self.hessian_images)
        return direct_image_blocks(self, self._prepared(graph))

    def hvp(self, graph: AtomGraph, vectors: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
        """Hessian of each structure times a displacement of its atoms, by differentiating twice, eV/Å.

        Args:
            graph: As for `forward`.
            vectors: Å.

        Raises:
            InputError: an element that the model does not know; `vectors` of another shape.
        """
        if vectors.shape != graph.positions.shape:
            raise InputError(
                f"`vectors` has shape {tuple(vectors.shape)} but must be {tuple(graph.positions.shape)}"
            )
        if _in_inference(graph):
            return _outside_inference(graph, lambda g: self.hvp(g, vectors.clone()))
        graph = self._prepared(graph)
        return Curvature(self, graph).product(vectors.to(graph.positions)).detach()

    def _prepared(self, graph: AtomGraph) -> AtomGraph:
        """The graph in the type of the model, its elements checked."""
        self.check_species(graph.atomic_numbers)
        return graph if graph.positions.dtype == self.dtype else graph.to(dtype=self.dtype)

    @staticmethod
    def edge_gradient(node_energy: Tensor, vectors: Tensor, create_graph: bool) -> Tensor:
        """dE/d(edge vector), (edges, 3), eV/Å."""
        if vectors.shape[0] == 0 or not node_energy.requires_grad:
            return torch.zeros_like(vectors)
        (gradient,) = torch.autograd.grad(
            node_energy.sum(), vectors, create_graph=create_graph, allow_unused=True
        )
        return torch.zeros_like(vectors) if gradient is None else gradient

    @staticmethod
    def _forces(graph: AtomGraph, gradient: Tensor) -> Tensor:
        """`edge = positions[sender] - positions[receiver]`: minus at senders, plus at receivers."""
        forces = torch.zeros_like(graph.positions).index_add(0, graph.receivers, gradient)
        return forces.index_add(0, graph.senders, gradient, alpha=-1)

    @staticmethod
    def _stress(graph: AtomGraph, vectors: Tensor, gradient: Tensor) -> Tensor:
        """Virial theorem: a strain moves every edge vector, `V sigma = sum of edge (x) dE/d(edge)`."""
        volume = torch.linalg.det(graph.cell).abs()
        if not bool((volume > 0).all()):
            flat = int((volume <= 0).nonzero()[0])
            raise InputError(f"structure {flat} has a cell without volume, so its stress is not defined")
        per_edge = (vectors.unsqueeze(2) * gradient.unsqueeze(1)).reshape(-1, 9)
        structure = graph.batch.index_select(0, graph.receivers)
        virial = per_edge.new_zeros(graph.num_structures, 9).index_add(0, structure, per_edge).view(-1, 3, 3)
        return 0.5 * (virial + virial.transpose(1, 2)) / volume.view(-1, 1, 1)


def _in_inference(graph: AtomGraph) -> bool:
    return torch.is_inference_mode_enabled() or graph.positions.is_inference()


def _outside_inference(graph: AtomGraph, function: Callable[[AtomGraph], T]) -> T:
    """Nothing can be differentiated in inference mode, nor with tensors made in it."""
    fields = {f.name: getattr(graph, f.name) for f in dataclasses.fields(graph)}
    with torch.inference_mode(False):
        return function(AtomGraph(**{name: value.clone() for name, value in fields.items()}))
