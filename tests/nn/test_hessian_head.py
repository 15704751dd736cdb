"""The head for Hessians: what holds by construction, whatever its weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from mlip.errors import InputError
from mlip.hessian_assembly import find_pairs
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.nn.hessian_head import normalised
from mlip.o3.cartesian import tensor_matrix
from mlip.o3.harmonics import spherical_harmonics
from mlip.potential import Potential

CONFIG = PolyadConfig(
    species=(1, 6, 8),
    cutoff=4.0,
    num_channels=4,
    lmax=2,
    num_knots=8,
    radial_width=8,
    readout_width=4,
    hessian_cutoff=5.0,
    hessian_channels=3,
    hessian_coordinates=4,
    hessian_width=8,
)


def potential(**options: object) -> Potential:
    torch.manual_seed(0)
    model = Polyad(dataclasses.replace(CONFIG, **options)).double()
    return Potential(model, {1: 0.0, 6: 0.0, 8: 0.0}).eval().requires_grad_(False)


MODEL = potential()


def direct(atoms: Atoms, model: Potential = MODEL) -> Tensor:
    return model.hessian(build_graph(atoms, model.cutoff), method="direct")[0]


def random_atoms(seed: int, *, periodic: bool) -> Atoms:
    random = np.random.default_rng(seed)
    cell = 3.0 * np.eye(3) + random.uniform(-0.4, 0.4, (3, 3))
    positions = random.permutation(np.array(list(np.ndindex(2, 2, 2))))[:5] * 1.5
    positions = positions + random.uniform(-0.3, 0.3, (5, 3))
    return Atoms(random.choice([1, 6, 8], 5), positions, cell=cell if periodic else None, pbc=periodic)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), periodic=st.booleans(), reflected=st.booleans())
def test_turns_with_the_structure(seed: int, periodic: bool, reflected: bool) -> None:
    atoms = random_atoms(seed, periodic=periodic)
    turn = Rotation.random(random_state=seed).as_matrix() * (-1 if reflected else 1)
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T + np.array([3.0, -1.0, 7.0])
    turned.cell = atoms.cell.array @ turn.T
    whole = torch.from_numpy(np.kron(np.eye(len(atoms)), turn))
    before, after = direct(atoms), direct(turned)
    scale = float(before.abs().max())
    assert scale > 0.01
    torch.testing.assert_close(after, whole @ before @ whole.T, rtol=0, atol=1e-11 * scale)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), periodic=st.booleans())
def test_symmetric_and_indifferent_to_translation(seed: int, periodic: bool) -> None:
    hessian = direct(random_atoms(seed, periodic=periodic))
    assert torch.equal(hessian, hessian.T)
    assert float(hessian.view(15, 5, 3).sum(dim=1).abs().max()) < 1e-13 * float(hessian.abs().max())


def test_blocks_are_not_symmetric() -> None:
    """Antisymmetric parts of the blocks between atoms are there, though they must add up to nothing."""
    block = direct(random_atoms(1, periodic=False))[:3, 3:6]
    assert float((block - block.T).abs().max()) > 1e-3 * float(block.abs().max())


def test_follows_the_order_of_the_atoms() -> None:
    atoms = random_atoms(2, periodic=True)
    order = [3, 1, 4, 0, 2]
    rows = torch.tensor([3 * i + k for i in order for k in range(3)])
    torch.testing.assert_close(direct(atoms[order]), direct(atoms)[rows][:, rows], rtol=0, atol=1e-11)


@pytest.mark.parametrize("distance", [5.0, 4.0, 2.5], ids=["stiffness", "features", "arms"])
def test_smooth_where_a_neighbour_passes_a_cutoff(distance: float) -> None:
    """Value and slope are continuous where the third atom passes a cutoff from the first."""

    def at(shift: float) -> Tensor:
        return direct(Atoms("OCH", [[0, 0, 0], [0, 1.1, 0.2], [0, 0.0, distance + shift]]))

    step = 1e-3
    below, here, above = at(-step), at(0.0), at(step)
    slope = float((at(-0.3) - at(-0.3 - step)).abs().max())
    assert float((above - here).abs().max()) <= 2 * slope
    assert float((above - 2 * here + below).abs().max()) <= 0.05 * slope + 1e-12


def test_zero_beyond_the_cutoff() -> None:
    """Blocks of atoms further apart than the cutoff are zero, and lone atoms have none."""
    chain = Atoms("C6", [[1.3 * i, 0.2 * (i % 2), 0] for i in range(6)])
    hessian = direct(chain)
    assert torch.equal(hessian[:3, 12:], torch.zeros(3, 6, dtype=torch.float64))
    assert float(hessian[:3, 9:12].abs().max()) > 0
    assert torch.equal(direct(Atoms("O")), torch.zeros(3, 3, dtype=torch.float64))


def test_pairs_of_molecules_are_those_of_the_cell_list() -> None:
    atoms = random_atoms(3, periodic=False)
    graph = build_graph(atoms, 4.0)
    boxed = build_graph(Atoms(atoms.numbers, atoms.positions, cell=[40] * 3, pbc=True), 4.0)
    plain, celled = find_pairs(graph, 2.2), find_pairs(boxed, 2.2)
    assert torch.equal(plain.senders, celled.senders)
    assert torch.equal(plain.receivers, celled.receivers)
    torch.testing.assert_close(plain.vectors, celled.vectors)
    nothing = find_pairs(graph, 2.2, wanted=torch.tensor([False]))
    assert nothing.senders.numel() == 0


@pytest.mark.parametrize("product", ["cp", "cg"])
def test_the_head_leaves_energies_alone(product: str) -> None:
    with_head, without = (potential(product=product, hessian_cutoff=c) for c in (5.0, 0.0))
    graph = build_graph(random_atoms(4, periodic=True), 4.0)
    a, b = with_head(graph), without(graph)
    assert torch.equal(a["energy"], b["energy"])
    assert torch.equal(a["forces"], b["forces"])


def test_tensors_are_the_harmonics() -> None:
    direction = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=1)
    found = torch.einsum("nx,xym,ny->nm", direction, tensor_matrix(), direction)
    torch.testing.assert_close(found, spherical_harmonics(direction, 2)[:, 4:9])


def test_normalised_features_have_one_size() -> None:
    x = (
        torch.randn(3, 9, 64, dtype=torch.float64)
        * torch.tensor([1.0, 30.0, 0.0], dtype=torch.float64)[:, None, None]
    )
    y = normalised(x)
    torch.testing.assert_close(
        y[:2, 1:4].square().mean(dim=(1, 2)), torch.ones(2, dtype=torch.float64), rtol=1e-3, atol=0
    )
    assert torch.equal(y[2], torch.zeros(9, 64, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hessian_cutoff": -1.0}, "`hessian_cutoff` is -1.0 but must be positive"),
        ({"hessian_width": 0}, "`hessian_width` is 0 but must be at least 1"),
        ({"lmax": 1, "lmax_hidden": 1}, "`lmax` is 1 but the head for Hessians needs at least 2"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        potential(**options)
