from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor

from mlip.errors import InputError
from mlip.graph import AtomGraph
from mlip.models.edges import Edges
from mlip.models.polyad import ExactMessage, FactoredMessage, Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.nn.radial import SplineBasis

CONFIG = PolyadConfig(
    species=(1, 8),
    cutoff=4.0,
    num_channels=5,
    lmax=2,
    lmax_hidden=1,
    num_knots=8,
    radial_width=8,
    avg_num_neighbors=7.0,
)


def make(**options: Any) -> Polyad:
    torch.manual_seed(0)
    return Polyad(dataclasses.replace(CONFIG, **options)).double().eval()


def graph() -> AtomGraph:
    positions = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)).numpy() * 3.5
    return build_graph(Atoms("OHHOHH", positions), 4.0)


def energies(model: Polyad) -> Tensor:
    g = graph()
    return model(g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())["node_energy"]


@pytest.mark.parametrize("radial", ["network", "spline"])
@pytest.mark.parametrize(("lmax", "lmax_hidden"), [(1, 1), (2, 1), (3, 1), (3, 2), (2, 0)])
def test_exact_factors_share_weights(lmax: int, lmax_hidden: int, radial: str) -> None:
    """Quadrature and polyadic factors are two ways to the same numbers."""
    cp = make(product="cp", lmax=lmax, lmax_hidden=lmax_hidden, radial=radial)
    quadrature = make(product="quadrature", lmax=lmax, lmax_hidden=lmax_hidden, radial=radial)
    with torch.no_grad():
        for parameter in cp.parameters():
            parameter += 0.1
    quadrature.load_state_dict(cp.state_dict())
    expected = energies(cp)
    torch.testing.assert_close(
        energies(quadrature), expected, rtol=0, atol=1e-12 * float(expected.detach().abs().max())
    )


@dataclasses.dataclass
class Operands:
    """Random operands of a message with degrees up to 1 in the features."""

    x: Tensor
    y: Tensor
    beta: Tensor
    row: Tensor
    g: AtomGraph
    rows: int

    @classmethod
    def random(cls, degrees_in: int) -> Operands:
        torch.manual_seed(4)
        g, basis = graph(), SplineBasis(4.0, 8)
        y, beta, interval = basis(g.edge_vectors(), 2)
        return cls(torch.randn(6, degrees_in**2, 5, dtype=torch.float64), y, beta, interval, g, basis.rows)

    def call(self, module: torch.nn.Module, table: Tensor) -> Tensor:
        edges = Edges(self.y, self.beta, self.row, self.g.senders, self.g.receivers)
        return module(self.x, table, edges, self.g.num_atoms)


@pytest.mark.parametrize("product", ["cp", "quadrature"])
@pytest.mark.parametrize("lmax_in", [0, 1, 2])
def test_factored_message_is_the_exact_one(product: str, lmax_in: int) -> None:
    """With the same scale on each path."""
    given = Operands.random(lmax_in + 1)
    factored = FactoredMessage(dataclasses.replace(CONFIG, product=product), lmax_in).double()
    exact = ExactMessage(dataclasses.replace(CONFIG, product="cg"), lmax_in).double()
    table = torch.randn(given.rows, 3, 5, dtype=torch.float64)
    scales = exact.product.gaunt_weights
    by_path = torch.stack(
        [scales[k] * table[:, l2] for k, (_, l2, _) in enumerate(exact.product.paths)], dim=1
    )
    expected = given.call(exact, by_path)
    got = given.call(factored, table)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("lmax_in", [0, 1, 2])
def test_exact_message_is_that_of_e3nn(lmax_in: int) -> None:
    """MACE's message: couplings by e3nn's 3j symbols and harmonics, a weight for each path."""
    o3 = pytest.importorskip("e3nn.o3")
    given = Operands.random(lmax_in + 1)
    exact = ExactMessage(dataclasses.replace(CONFIG, product="cg"), lmax_in).double()
    table = torch.randn(given.rows, exact.num_weights, 5, dtype=torch.float64)
    y = o3.spherical_harmonics([0, 1, 2], given.g.edge_vectors(), normalize=True, normalization="component")
    radial = torch.einsum("ek,ekpc->epc", given.beta, table[given.row[:, None] + torch.arange(6)])
    messages = torch.zeros(given.g.num_edges, 9, 5, dtype=torch.float64)
    for path, (l1, l2, l3) in enumerate(exact.product.paths):
        one, two, three = (slice(l * l, (l + 1) ** 2) for l in (l1, l2, l3))
        symbol = o3.wigner_3j(l1, l2, l3, dtype=torch.float64) * (2 * l3 + 1) ** 0.5
        coupled = torch.einsum("ijk,eic,ej->ekc", symbol, given.x[given.g.senders][:, one], y[:, two])
        messages[:, three] += coupled * radial[:, path, None]
    expected = torch.zeros(6, 9, 5, dtype=torch.float64).index_add(0, given.g.receivers, messages) / 7.0**0.5
    torch.testing.assert_close(
        given.call(exact, table), expected, rtol=0, atol=1e-12 * float(expected.abs().max())
    )


@pytest.mark.parametrize("product", ["cp", "cg"])
def test_energy_scale(product: str) -> None:
    torch.testing.assert_close(
        energies(make(product=product, energy_scale=3.0)), 3 * energies(make(product=product))
    )


def test_repulsion_is_added() -> None:
    model = make(zbl=True, energy_scale=0.5)
    g = graph()
    species = model.species_index[g.atomic_numbers]
    assert model.repulsion is not None
    expected = model.repulsion(species, g.senders, g.receivers, g.edge_vectors())
    assert expected.max() > 0
    torch.testing.assert_close(energies(model) - energies(make(energy_scale=0.5)), expected)


def test_elements_differ() -> None:
    model, g = make(), graph()
    swapped = model(9 - g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())["node_energy"]
    assert float((swapped - energies(model)).detach().abs().min()) > 1e-4


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_reach(num_layers: int) -> None:
    """An atom feels others through as many neighbours as there are layers, and no further."""
    model = make(num_layers=num_layers)
    g = build_graph(Atoms("OHOHO", [[0, 0, 3.0 * k] for k in range(5)]), 4.0)
    vectors = g.edge_vectors().requires_grad_()
    energy = model(g.atomic_numbers, g.senders, g.receivers, vectors)["node_energy"][0]
    felt = torch.autograd.grad(energy, vectors)[0].abs().sum(1) > 0
    farthest = int(torch.maximum(g.senders, g.receivers)[felt].max())
    assert farthest == num_layers


def test_pairs() -> None:
    """Radial functions belong to a receiving and a sending element, in this order."""
    model, g = make(num_layers=1, radial="spline"), graph()
    before = energies(model)
    with torch.no_grad():
        model.layers[0].radial.coefficients[0 * 2 + 1] += 1.0  # hydrogen receives from oxygen
    changed = (energies(model) - before).abs() > 1e-8
    assert torch.equal(changed, g.atomic_numbers == 1)


def test_features() -> None:
    g = graph()
    out = make()(g.atomic_numbers, g.senders, g.receivers, g.edge_vectors())
    assert set(out) == {"node_energy", "node_features"}
    assert out["node_features"].shape == (6, 5)


@pytest.mark.parametrize(
    "option", ["num_channels", "num_layers", "num_knots", "radial_width", "readout_width"]
)
def test_at_least_one(option: str) -> None:
    with pytest.raises(InputError, match=f"`{option}` is 0 but must be at least 1"):
        make(**{option: 0})


@pytest.mark.parametrize("lmax_hidden", [-1, 3])
def test_hidden_degrees(lmax_hidden: int) -> None:
    with pytest.raises(
        InputError, match=f"`lmax_hidden` is {lmax_hidden} but must lie between 0 and `lmax` \\(2\\)"
    ):
        make(lmax_hidden=lmax_hidden)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"product": "gaunt"}, "model configuration: .*gaunt.* must be one of"),
        ({"radial": "bessel"}, "model configuration: `radial` is 'bessel' but must be 'network' or 'spline'"),
        ({"correlation": 0}, "model configuration: `correlation` is 0 but must be 1, 2, 3 or 4"),
        (
            {"product": "cg", "correlation": 4},
            "model configuration: `correlation` is 4 but must be 1, 2 or 3",
        ),
        (
            {"product": "cp-all", "lmax": 9, "lmax_hidden": 1},
            'model configuration: no "cp-all" factors are shipped',
        ),
        ({"species": "HO"}, "model configuration: "),
        ({"cutoff": "long"}, "model configuration: "),
    ],
    ids=str,
)
def test_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Polyad.from_config({"species": [1, 8], **options})


def test_refuses_an_unknown_product() -> None:
    with pytest.raises(InputError, match="`product` is 'foo' but must be one of cg, quadrature, cp, cp-all"):
        Polyad.from_config({"species": (1,), "product": "foo"})
