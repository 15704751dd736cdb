from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from torch import Tensor, nn

import mlip.kernels.library
from mlip.errors import InputError
from mlip.graph import AtomGraph, collate
from mlip.models.base import Model, ModelConfig
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.potential import Potential

E0S = {1: -13.6, 6: -1030.0, 8: -2043.0}
SIGMA, EPSILON, CUTOFF = 2.3, 0.04, 6.0


class Pairs(Model):
    """Lennard-Jones atoms, shifted to zero at the cutoff, with a parameter to train."""

    Config = ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.epsilon = nn.Parameter(torch.tensor(EPSILON))

    def forward(
        self, atomic_numbers: Tensor, senders: Tensor, receivers: Tensor, edge_vectors: Tensor
    ) -> dict[str, Tensor]:
        def lennard_jones(x: Tensor | float) -> Tensor:
            return 2 * self.epsilon * (x**12 - x**6)

        energy = lennard_jones(SIGMA / edge_vectors.norm(dim=1)) - lennard_jones(SIGMA / CUTOFF)
        return {"node_energy": edge_vectors.new_zeros(len(atomic_numbers)).index_add(0, receivers, energy)}


def pairs() -> Potential:
    model = Pairs(ModelConfig(species=(18,), cutoff=CUTOFF)).double()
    with torch.no_grad():
        model.epsilon.fill_(EPSILON)
    return Potential(model, {18: 0.0}).eval()


def network(**options: object) -> Potential:
    torch.manual_seed(0)
    config = PolyadConfig(
        species=(1, 6, 8),
        cutoff=4.0,
        num_channels=4,
        lmax=2,
        num_knots=8,
        radial_width=8,
        **options,  # type: ignore[arg-type]
    )
    return Potential(Polyad(config).double(), E0S).eval()


def ethanol() -> AtomGraph:
    return build_graph(molecule("CH3CH2OH"), 4.0)


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(0.15, seed=seed)
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        rattled(Atoms("Ar4", [[0, 0, 0], [0, 0, 2.5], [2.4, 0, 0], [2, 2, 2]])),
        rattled(bulk("Ar", cubic=True, a=4.1)),
        rattled(bulk("Ar", a=4.0).repeat((1, 2, 1))),
        rattled(
            Atoms(
                "Ar2", [[0, 0, 0], [1.5, 1.5, 2.0]], cell=[[3.1, 0, 0], [1, 3, 0], [0, 0, 30]], pbc=[1, 1, 0]
            )
        ),
    ],
    ids=["cluster", "cubic", "triclinic", "slab"],
)
def test_against_ase(atoms: Atoms) -> None:
    """Energy, atomic energies, forces and stress, with their signs, of ASE's own Lennard-Jones calculator."""
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
    stress = bool(atoms.cell.rank == 3)
    out = pairs()(build_graph(atoms, CUTOFF), stress=stress)
    assert float(out["energy"]) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(out["node_energy"], atoms.get_potential_energies(), rtol=1e-11)
    np.testing.assert_allclose(out["forces"], atoms.get_forces(), rtol=1e-10, atol=1e-12)
    if stress:
        expected = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(out["stress"][0], expected, rtol=1e-10, atol=1e-12 * abs(expected).max())


def test_reference_energies_add_up() -> None:
    graph = collate([ethanol(), build_graph(molecule("H2O"), 4.0)])
    potential = network()
    shifted = Potential(potential.model, {z: e + 0.5 * z for z, e in E0S.items()}).eval()
    one, two = potential(graph), shifted(graph)
    extra = 0.5 * graph.atomic_numbers.double()
    torch.testing.assert_close(two["node_energy"] - one["node_energy"], extra, rtol=1e-11, atol=0)
    torch.testing.assert_close(
        two["energy"] - one["energy"], torch.tensor([13.0, 5.0]).double(), rtol=1e-11, atol=0
    )
    assert torch.equal(one["forces"], two["forces"])
    alone = potential.model(graph.atomic_numbers, graph.senders, graph.receivers, graph.edge_vectors())
    reference = torch.tensor([E0S[z] for z in graph.atomic_numbers.tolist()], dtype=torch.float64)
    torch.testing.assert_close(
        one["node_energy"], alone["node_energy"].detach() + reference, rtol=1e-14, atol=0
    )
    assert potential.isolated_energies() == E0S


def test_single_precision() -> None:
    """Nothing is lost but the digits of the network: totals of thousands of eV keep theirs."""
    graph, double = ethanol(), network()
    single = copy.deepcopy(double).float()
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    one, two = double(graph), single(graph)
    assert two["energy"].dtype == two["node_energy"].dtype == torch.float64
    assert two["forces"].dtype == torch.float32
    scale = float(one["forces"].abs().max())
    assert float((one["energy"] - two["energy"]).abs()) < 1e-5
    assert float((one["forces"] - two["forces"]).abs().max()) < 1e-5 * scale
    assert not torch.equal(one["energy"], two["energy"])


def test_graphs_of_either_precision() -> None:
    graph, potential = ethanol(), network().float()
    torch.testing.assert_close(potential(graph)["forces"], potential(graph.to(dtype=torch.float32))["forces"])


def test_conversions_keep_the_reference_energies() -> None:
    potential = network()
    exact = potential.e0s.clone()
    for converted in (potential.float(), potential.half(), potential.to(torch.bfloat16), potential.double()):
        assert converted.e0s.dtype == torch.float64
        assert torch.equal(converted.e0s, exact)
    assert potential.device == torch.device("cpu")
    assert network().to("meta").e0s.is_meta


def test_what_is_asked_for() -> None:
    graph, potential = build_graph(bulk("C"), 4.0), network()
    assert set(potential(graph)) == {"energy", "node_energy", "forces"}
    assert set(potential(graph, forces=False)) == {"energy", "node_energy"}
    assert set(potential(graph, forces=False, stress=True)) == {"energy", "node_energy", "stress"}
    with torch.no_grad():
        inside = potential(graph, stress=True)
    for key, value in potential(graph, stress=True).items():
        assert torch.equal(inside[key], value)
        assert not value.requires_grad


@pytest.mark.parametrize("verified", [True, False])
def test_inference_mode(verified: bool) -> None:
    """Derivatives are there, whoever made the graph, also if the kernels are first used here."""
    potential, outside = network(), build_graph(bulk("C"), 4.0)
    expected = potential(outside, stress=True)
    if not verified:
        mlip.kernels.library.usable.cache_clear()
    with torch.inference_mode():
        inside = build_graph(bulk("C"), 4.0)
        for graph in (outside, inside):
            for key, value in potential(graph, stress=True).items():
                assert torch.equal(value, expected[key])
            assert torch.equal(potential(graph, forces=False)["energy"], expected["energy"])
    assert torch.equal(potential(inside)["forces"], expected["forces"])


def test_unknown_element() -> None:
    graph = collate([ethanol(), build_graph(Atoms("NaClO", [[0, 0, 0], [0, 0, 2], [0, 0, 4]]), 4.0)])
    with pytest.raises(
        InputError, match=r"element\(s\) Na, Cl are unknown to this model; it was trained on H C O"
    ):
        network()(graph)
    wrong = dataclasses.replace(ethanol(), atomic_numbers=torch.tensor([6] * 8 + [500]))
    with pytest.raises(InputError, match=r"element\(s\) 500 are unknown"):
        network()(wrong)


def test_reference_energies_missing_or_bad() -> None:
    model = network().model
    with pytest.raises(
        InputError, match=r"`e0s` lacks atomic number\(s\) \[6, 8\]; give one energy \(eV\) for each"
    ):
        Potential(model, {1: -13.6})
    with pytest.raises(InputError, match=r"`e0s` is .*nan.* but every energy must be finite"):
        Potential(model, {1: float("nan"), 6: 0.0, 8: 0.0})
    assert set(Potential(model, E0S | {92: 5.0}).isolated_energies()) == {1, 6, 8}


def test_stress_without_volume() -> None:
    graph = collate([build_graph(bulk("C"), 4.0), ethanol()])
    with pytest.raises(
        InputError, match="structure 1 has a cell without volume, so its stress is not defined"
    ):
        network()(graph, stress=True)


def test_metadata_is_a_copy() -> None:
    metadata = {"license": "MIT"}
    potential = Potential(network().model, E0S, metadata=metadata)
    metadata["license"] = "other"
    assert potential.metadata == {"license": "MIT"}


@pytest.mark.parametrize("product", ["cp", "quadrature", "cg"])
@pytest.mark.parametrize("radial", ["network", "spline"])
def test_training_gradient(product: str, radial: str) -> None:
    """Gradient of a loss on energies, forces and stress by all weights, against finite differences."""
    potential = network(product=product, radial=radial, zbl=True).train()
    graph = collate([build_graph(rattled(bulk("C")), 4.0), build_graph(rattled(molecule("H2O")), 4.0)])
    graph = dataclasses.replace(
        graph, cell=graph.cell + (torch.tensor([0.0, 9.0]).view(2, 1, 1) * torch.eye(3)).double()
    )
    generator = torch.Generator().manual_seed(1)

    def loss() -> Tensor:
        out = potential(graph, stress=True, create_graph=True)
        return (
            out["energy"].pow(2).sum() * 1e-6 + out["forces"].pow(2).sum() + 10 * out["stress"].pow(2).sum()
        )

    weights = list(potential.parameters())
    gradient = torch.autograd.grad(loss(), weights)
    step = 1e-5
    for w, g in zip(weights, gradient, strict=True):
        direction = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values = []
        for at in (-2, -1, 1, 2):
            with torch.no_grad():
                w += at * step * direction
            values.append(float(loss().detach()))
            with torch.no_grad():
                w -= at * step * direction
        expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert float((g * direction).sum()) == pytest.approx(
            expected, rel=1e-6, abs=1e-6 * float(g.norm()) + 1e-8
        )


@pytest.mark.parametrize("product", ["cp", "cg"])
def test_every_weight_is_used(product: str) -> None:
    potential = network(product=product).train()
    graph = collate([ethanol(), build_graph(molecule("CO2"), 4.0)])
    out = potential(graph, create_graph=True)
    loss = out["energy"].sum() + out["forces"].pow(2).sum()
    for (name, _), gradient in zip(
        potential.named_parameters(), torch.autograd.grad(loss, list(potential.parameters())), strict=True
    ):
        assert gradient.abs().max() > 0, name


def test_hessian() -> None:
    """Positions that ask for gradients get second derivatives: symmetric, and as finite differences say."""
    graph, potential = build_graph(rattled(molecule("H2O")), 4.0), network().requires_grad_(False)
    positions = graph.positions.clone().requires_grad_()
    forces = potential(dataclasses.replace(graph, positions=positions), create_graph=True)["forces"]
    hessian = -torch.stack(
        [torch.autograd.grad(f, positions, retain_graph=True)[0].flatten() for f in forces.flatten()]
    )
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-10, atol=1e-10 * float(hessian.abs().max()))
    step = 1e-4
    for k in range(9):
        shift = step * torch.eye(9, dtype=torch.float64)[k].view(3, 3)
        up, down = (
            potential(dataclasses.replace(graph, positions=graph.positions + s))["forces"]
            for s in (shift, -shift)
        )
        expected = ((down - up) / (2 * step)).flatten()
        torch.testing.assert_close(hessian[:, k], expected, rtol=1e-5, atol=1e-6 * float(hessian.abs().max()))


def test_isolated_atoms_only() -> None:
    """No edges at all, in training too."""
    graph = build_graph(Atoms("HO", [[0, 0, 0], [0, 0, 50.0]], cell=[90] * 3), 4.0)
    assert graph.num_edges == 0
    for potential in (network().eval(), network().train()):
        out = potential(graph, stress=True, create_graph=potential.training)
        assert not out["forces"].any()
        assert not out["stress"].any()
        assert out["energy"].isfinite().all()
