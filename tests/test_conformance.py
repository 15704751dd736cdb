"""Every model, product, radial function, instruction set and calculator through `mlip.testing`, and proof
that each of its checks notices a potential that is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mlip.calculators import MLIPCalculator
from mlip.graph import AtomGraph
from mlip.kernels.library import instruction_set, set_instruction_set
from mlip.models import MODELS
from mlip.potential import Potential
from mlip.testing import CHECKS, CalculatorAdapter, check_potential

E0S = {1: -13.6, 8: -430.0}
SMALL = {
    "species": (1, 8),
    "cutoff": 4.0,
    "num_channels": 5,
    "lmax": 2,
    "num_knots": 12,
    "radial_width": 8,
    "readout_width": 4,
}


def make(name: str = "polyad", **options: Any) -> Potential:
    """A small potential with random weights."""
    torch.manual_seed(3)
    return Potential(MODELS[name].from_config(SMALL | options).double(), E0S).eval()


@pytest.mark.parametrize("zbl", [False, True], ids=["plain", "zbl"])
@pytest.mark.parametrize("radial", ["network", "spline"])
@pytest.mark.parametrize("product", ["cp", "quadrature", "cg"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, product: str, radial: str, zbl: bool) -> None:
    check_potential(make(name, product=product, radial=radial, zbl=zbl))


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 1},
        {"num_layers": 3, "lmax_hidden": 2},
        {"lmax": 3, "correlation": 2},
        {"lmax": 4, "lmax_hidden": 0},
        {"lmax": 1, "correlation": 4},
        {"correlation": 1},
        {"num_channels": 1},
        {"lmax": 0, "lmax_hidden": 0},
    ],
    ids=str,
)
def test_sizes(options: dict[str, int]) -> None:
    """Those with a compiled kernel and those without."""
    check_potential(make(**options), seed=1)


def test_all_paths_are_for_rotations_alone() -> None:
    potential = make(product="cp-all")
    check_potential(potential, reflections=False)
    with pytest.raises(
        AssertionError, match=r"^rotation: molecule: rotation with reflection .* `energy` differs"
    ):
        check_potential(potential)


@pytest.mark.parametrize("product", ["cp", "cg"])
def test_single_precision(product: str) -> None:
    check_potential(make(product=product, zbl=True).float())


@pytest.fixture(params=["generic", "avx2", "avx512"])
def each_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = instruction_set()
    try:
        set_instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    set_instruction_set(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_instruction_sets(each_instruction_set: str, dtype: torch.dtype) -> None:
    check_potential(make(num_channels=20).to(dtype=dtype))


def test_calculator() -> None:
    adapter = CalculatorAdapter(MLIPCalculator(make(), device="cpu"), species=(1, 8), cutoff=4.0)
    check_potential(adapter)


def test_single_precision_calculator() -> None:
    calculator = MLIPCalculator(make(), device="cpu", dtype="float32", skin=0.0)
    check_potential(CalculatorAdapter(calculator, species=(1, 8), cutoff=4.0, dtype=torch.float32))


def test_unknown_check() -> None:
    with pytest.raises(ValueError, match=r"`skip` holds \['rotations'\] but the checks are outputs, sums"):
        check_potential(make(), skip=["rotations"])


# Wrong potentials: the results of a right one, changed. Each must be found by the check that is there for it.

Change = Callable[[AtomGraph, dict[str, Tensor]], dict[str, Tensor]]


@dataclasses.dataclass
class Changed:
    potential: Potential
    change: Change
    species: tuple[int, ...] = (1, 8)
    cutoff: float = 4.0
    dtype: torch.dtype = torch.float64

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        return self.change(graph, self.potential(graph, forces=forces, stress=stress))


def plus(graph: AtomGraph, out: dict[str, Tensor], extra: Tensor) -> dict[str, Tensor]:
    """More energy on each atom."""
    energy = out["energy"].index_add(0, graph.batch, extra.double())
    return out | {"node_energy": out["node_energy"] + extra, "energy": energy}


def on_receivers(graph: AtomGraph, per_edge: Tensor) -> Tensor:
    return torch.zeros(graph.num_atoms, dtype=per_edge.dtype).index_add(0, graph.receivers, per_edge)


def near(graph: AtomGraph) -> Tensor:
    """A smooth weight of each edge, 0 beyond the cutoff."""
    return (1 - graph.edge_vectors().pow(2).sum(1) / 16.0).clamp(min=0) ** 5


def without(out: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {k: v for k, v in out.items() if k != key}


def scaled(out: dict[str, Tensor], key: str, factor: float | Tensor) -> dict[str, Tensor]:
    return out | {key: out[key] * factor} if key in out else out


def shift_positions(graph: AtomGraph, out: dict[str, Tensor]) -> dict[str, Tensor]:
    graph.positions.add_(1e-9)
    return out


def drift(graph: AtomGraph, out: dict[str, Tensor]) -> dict[str, Tensor]:
    return out | {"forces": out["forces"] + 1e-6} if "forces" in out else out


def skewed(graph: AtomGraph, out: dict[str, Tensor]) -> dict[str, Tensor]:
    factor = torch.ones(3, 3, dtype=torch.float64)
    factor[0, 1] += 1e-6
    return scaled(out, "stress", factor)


def mixed_up_stress(graph: AtomGraph, out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shear components at half their size."""
    return scaled(out, "stress", 0.5 + 0.5 * torch.eye(3, dtype=torch.float64))


WRONG: dict[str, tuple[str, Change]] = {
    "no forces": ("outputs: .*forces=True.*keys are", lambda g, out: without(out, "forces")),
    "single precision": (
        "outputs: .*`energy` is .*float32",
        lambda g, out: out | {"energy": out["energy"].float()},
    ),
    "total for a list": (
        "outputs: .*`energy` is \\(\\)",
        lambda g, out: out | {"energy": out["energy"].sum()},
    ),
    "not a number": ("outputs: .*`forces` holds NaN", lambda g, out: scaled(out, "forces", torch.nan)),
    "open graph": (
        "outputs: .*`energy` still requires",
        lambda g, out: out | {"energy": out["energy"].clone().requires_grad_()},
    ),
    "input changed": ("outputs: .*the input `positions` was changed", shift_positions),
    "noise": (
        "outputs: .*another `energy`",
        lambda g, out: out | {"energy": out["energy"] + 1e-9 * torch.rand(1, dtype=torch.float64)},
    ),
    "sum of parts": (
        "sums: .*atomic energies",
        lambda g, out: out | {"node_energy": out["node_energy"] + 1e-3},
    ),
    "net force": ("sums: .*forces add up", drift),
    "skew stress": ("sums: .*not symmetric", skewed),
    "energy of a box": (
        "isolated: .*pbc=True",
        lambda g, out: plus(g, out, 1e-6 * g.pbc[g.batch, 0].double()),
    ),
    "a direction": (
        "rotation: ",
        lambda g, out: plus(g, out, 1e-6 * on_receivers(g, near(g) * g.edge_vectors()[:, 2] ** 2)),
    ),
    "a place": (
        "translation: ",
        lambda g, out: plus(g, out, 1e-7 * (g.positions - g.positions[0]).norm(dim=1)),
    ),
    "an order": (
        "permutation: ",
        lambda g, out: plus(g, out, 1e-6 * on_receivers(g, near(g)) * (torch.arange(g.num_atoms) == 1)),
    ),
    "a batch": ("batch: ", lambda g, out: out | {"energy": out["energy"] / g.num_structures}),
    "first cell": (
        "batch: .*`stress`",
        lambda g, out: scaled(out, "stress", (g.cell[0].det() / g.cell.det()).abs().view(-1, 1, 1)),
    ),
    "number of edges": (
        "long_edges: ",
        lambda g, out: plus(g, out, 1e-7 * on_receivers(g, torch.ones(g.num_edges, dtype=torch.float64))),
    ),
    "a mean": (
        "extensivity: ",
        lambda g, out: plus(g, out, 1e-6 * on_receivers(g, near(g)) / g.batch.bincount()[g.batch]),
    ),
    "scaled forces": ("derivatives: .*forces differ", lambda g, out: scaled(out, "forces", 1 + 3e-7)),
    "pressure": ("derivatives: .*stresses differ", lambda g, out: scaled(out, "stress", -1.0)),
    "shear": ("derivatives: .*stresses differ", mixed_up_stress),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_potentials_are_found(wrong: str) -> None:
    message, change = WRONG[wrong]
    # turning a wrong shear also breaks its rotation
    skip = ["rotation"] if wrong == "shear" else []
    with pytest.raises(AssertionError, match=f"^{message}"):
        check_potential(Changed(make(), change), skip=skip)


class Pair:
    """A pair potential, x = r / cutoff, whose value at x = 1 goes to zero as (1 - x)**order."""

    species, cutoff, dtype = (1, 8), 4.0, torch.float64

    def __init__(self, order: int, *, shift: bool = False) -> None:
        self.order, self.shift = order, shift

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        vectors = graph.edge_vectors().requires_grad_()
        x = vectors.norm(dim=1) / self.cutoff
        energy = 0.5 * torch.where(x < 1, (1 - x).clamp(min=0) ** self.order if self.order else 2 - x, 0.0)
        (gradient,) = torch.autograd.grad(energy.sum(), vectors)
        node_energy = on_receivers(graph, energy).detach()
        out = {"node_energy": node_energy}
        out["energy"] = torch.zeros(graph.num_structures, dtype=torch.float64).index_add(
            0, graph.batch, node_energy
        )
        if forces:
            out["forces"] = Potential._forces(graph, gradient)
        if stress:
            out["stress"] = Potential._stress(graph, vectors.detach(), gradient)
        return out


@pytest.mark.parametrize(
    ("order", "message"),
    [(0, "the energy jumps"), (1, "the force jumps"), (2, "the derivative of the force jumps")],
)
def test_rough_potentials_are_found(order: int, message: str) -> None:
    with pytest.raises(AssertionError, match=f"^smoothness: elements 1 and 1 at the cutoff: {message}"):
        check_potential(Pair(order))


def test_smooth_enough() -> None:
    check_potential(Pair(3))


def test_every_check_is_shown_to_work() -> None:
    assert set(CHECKS) == {message.split(":")[0] for message, _ in WRONG.values()} | {"smoothness"}
