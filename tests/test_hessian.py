"""Second derivatives against finite differences, supercells and each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mlip.errors import InputError
from mlip.graph import AtomGraph, collate
from mlip.hessian import autograd_hessian
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.potential import Potential
from mlip.testing import check_hessian

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
    return Potential(model, {1: -13.0, 6: -1030.0, 8: -2040.0}).eval().requires_grad_(False)


def crystal() -> Atoms:
    return Atoms(
        "CO", [[0, 0, 0], [1.2, 0.4, 0.3]], cell=[[2.9, 0, 0], [0.4, 3.1, 0], [0, 0.5, 3.3]], pbc=True
    )


def structures() -> list[Atoms]:
    return [molecule("CH3OH"), Atoms("H"), crystal(), molecule("H2O")]


def batch(model: Potential) -> AtomGraph:
    return collate([build_graph(atoms, model.cutoff) for atoms in structures()])


@pytest.mark.parametrize("edges_at_once", [1, 500])
def test_autograd_is_finite_difference(edges_at_once: int) -> None:
    model = potential()
    graph = batch(model)
    exact = autograd_hessian(model, graph, edges_at_once=edges_at_once)
    for a, b in zip(exact, model.hessian(graph, method="finite-difference"), strict=True):
        assert torch.equal(a, a.T)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * max(1.0, float(a.abs().max())))


def test_products_are_those_of_the_matrix() -> None:
    model = potential()
    graph = batch(model)
    vectors = torch.randn(graph.num_atoms, 3, dtype=torch.float64)
    products = model.hvp(graph, vectors)
    start = 0
    for hessian in model.hessian(graph, method="autograd"):
        rows = slice(start, start := start + len(hessian) // 3)
        expected = (hessian @ vectors[rows].reshape(-1)).view(-1, 3)
        torch.testing.assert_close(products[rows], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["direct", "autograd"])
def test_each_structure_as_if_alone(method: str) -> None:
    model = potential()
    for atoms, hessian in zip(structures(), model.hessian(batch(model), method=method), strict=True):
        alone = model.hessian(build_graph(atoms, model.cutoff), method=method)[0]
        torch.testing.assert_close(hessian, alone, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("method", ["direct", "autograd"])
def test_a_cell_is_the_sum_over_its_supercell(method: str) -> None:
    """The Hessian of a cell folds that of its supercell, images summed: none is lost or doubled."""
    model = potential()
    cell = crystal()
    small = model.hessian(build_graph(cell, model.cutoff), method=method)[0]
    large = model.hessian(build_graph(cell.repeat((2, 1, 2)), model.cutoff), method=method)[0]
    n, copies = len(cell), 4
    folded = large.view(copies, 3 * n, copies, 3 * n)[0].sum(dim=1)
    torch.testing.assert_close(folded, small, rtol=1e-9, atol=1e-10)


def test_small_and_large_structures_are_put_together_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = potential()
    small = model.hessian(batch(model), method="direct")
    monkeypatch.setattr("mlip.kernels.hessian_matrix.LARGEST", {"torch": 0, "compiled": 0})
    monkeypatch.setattr("mlip.hessian_assembly.LARGE", 0)
    monkeypatch.setattr("mlip.hessian_assembly.NUMBERS_AT_ONCE", 1000)
    for a, b in zip(small, model.hessian(batch(model), method="direct"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_only_the_structures_that_are_chosen() -> None:
    model = potential()
    graph, matrices = batch(model), model.hessian(batch(model), method="direct")
    for chosen in ([], [0, 3]):
        output = model(graph, hessian_of=torch.tensor(chosen, dtype=torch.int64))
        expected = torch.cat(
            [torch.zeros(0, dtype=torch.float64), *(matrices[s].reshape(-1) for s in chosen)]
        )
        torch.testing.assert_close(output["hessian"], expected)


def test_images_make_phonons() -> None:
    """Images kept apart add up to the Hessian at Gamma; with phases they give the modes of a supercell."""
    model = potential()
    cell = crystal()
    images = model.hessian_images(build_graph(cell, model.cutoff))
    size = 3 * len(cell)

    def dynamical(q: tuple[float, float, float]) -> np.ndarray:
        phases = np.exp(2j * np.pi * images.shifts.numpy() @ np.array(q))
        matrix = np.zeros((len(cell), 3, len(cell), 3), dtype=complex)
        np.add.at(
            matrix.transpose(0, 2, 1, 3),
            (images.first.numpy(), images.second.numpy()),
            images.blocks.numpy() * phases[:, None, None],
        )
        return matrix.reshape(size, size)

    gamma = model.hessian(build_graph(cell, model.cutoff), method="direct")[0].numpy()
    np.testing.assert_allclose(dynamical((0, 0, 0)), gamma, atol=1e-10)
    values = [np.linalg.eigvalsh(dynamical((0, q, 0))) for q in (0.0, 1 / 3, -1 / 3)]
    large = model.hessian(build_graph(cell.repeat((1, 3, 1)), model.cutoff), method="direct")[0].numpy()
    np.testing.assert_allclose(np.sort(np.concatenate(values)), np.linalg.eigvalsh(large), atol=1e-9)
    with pytest.raises(InputError, match="`graph` has 4 structures but must have one"):
        model.hessian_images(batch(model))
    with pytest.raises(InputError, match="no head for direct Hessians"):
        potential(hessian_cutoff=0.0).hessian_images(build_graph(cell, model.cutoff))


def test_inference_mode() -> None:
    model = potential()
    expected = model.hessian(batch(model), method="autograd")
    with torch.inference_mode():
        graph = batch(model)
        for method in ("direct", "autograd"):
            assert len(model.hessian(graph, method=method)) == 4
        found = model.hessian(graph, method="autograd")
        assert torch.isfinite(model.hvp(graph, torch.ones(graph.num_atoms, 3, dtype=torch.float64))).all()
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


def test_what_the_checks_report() -> None:
    model = potential()
    report = check_hessian(model, molecule("CH3OH"), method="autograd")
    assert report.symmetry == 0
    assert report.translation < 1e-10 * report.scale
    assert report.rotation is not None
    assert report.rotation < 1e-10 * report.scale
    assert report.agreement["finite-difference"] < 1e-6
    untrained = check_hessian(model, molecule("CH3OH"))
    assert untrained.method == "direct"
    assert untrained.translation < 1e-12 * untrained.scale
    assert untrained.rotation is not None
    assert untrained.rotation > 1e-3
    assert untrained.agreement["autograd"] == pytest.approx(report.agreement["direct"])
    assert check_hessian(model, bulk("C"), method="autograd", compare=False).rotation is None


def test_methods_are_named() -> None:
    model, bare = potential(), potential(hessian_cutoff=0.0)
    graph = build_graph(molecule("H2O"), model.cutoff)
    assert (model.has_direct_hessian, model.best_hessian_method()) == (True, "direct")
    assert (bare.has_direct_hessian, bare.best_hessian_method()) == (False, "autograd")
    assert torch.equal(bare.hessian(graph)[0], bare.hessian(graph, method="autograd")[0])
    with pytest.raises(InputError, match="no head for direct Hessians"):
        bare.hessian(graph, method="direct")
    with pytest.raises(InputError, match="`method` is 'exact' but must be one of direct, autograd"):
        model.hessian(graph, method="exact")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`vectors` has shape"):
        model.hvp(graph, torch.zeros(2, 3))


def test_single_precision() -> None:
    model = potential()
    graph = build_graph(molecule("CH3OH"), model.cutoff)
    exact = model.hessian(graph, method="autograd")[0]
    single = potential().float()
    for method, tolerance in (("autograd", 1e-4), ("finite-difference", 5e-3)):
        found = single.hessian(graph, method=method)[0]
        assert found.dtype == torch.float32
        assert float((found - exact).abs().max()) < tolerance * float(exact.abs().max())


def test_a_model_that_is_not_differentiable_twice() -> None:
    """A force that does not depend on the positions has no curvature, and no gradient to follow."""
    model = potential()
    lone = build_graph(Atoms("H2", [[0, 0, 0], [0, 0, 30.0]]), model.cutoff)
    assert np.array_equal(model.hessian(lone, method="autograd")[0].numpy(), np.zeros((6, 6)))
