"""The indicator of unfamiliar environments: its mathematics, its calibration, its way into a file and out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.io import read

from mlip.calculators import BatchCalculator, MLIPCalculator, OutsideDomainWarning
from mlip.calculators.ase_calculator import warn_if_novel
from mlip.checkpoint import load_potential, save_potential
from mlip.datasets import Frame
from mlip.domain import QUANTILE, DomainFit, calibrate
from mlip.graph import collate
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.potential import Potential
from mlip.training.novelty import fit_domain
from mlip.training.packed import pack

USUAL = {"odd": torch.tensor(False), "periodic": torch.tensor(False)}


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of two species, correlated and of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    species = torch.arange(count) % 2
    mixing = torch.tensor([[3.0, 0.0, 0.0], [2.9, 0.1, 0.0], [0.0, 0.0, 50.0]], dtype=torch.float64)
    normal = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return normal @ mixing.T + 10.0 * species[:, None], species


def test_distance_is_that_of_mahalanobis() -> None:
    features, species = samples(4000, 1)
    fit = DomainFit(2, 3)
    fit.add(features[:1000], species[:1000])
    fit.add(features[1000:], species[1000:])
    distances = fit.domain().distance(features[:50], species[:50])
    for index in (0, 1):
        mine = features[species == index].numpy()
        inverse = np.linalg.inv(np.cov(mine.T, bias=True))
        off = features[:50][species[:50] == index].numpy() - mine.mean(0)
        expected = np.sqrt(np.einsum("ni,ij,nj->n", off, inverse, off))
        # what is added to directions without spread shows where one of the scales is tiny
        assert np.corrcoef(distances[species[:50] == index].numpy(), expected)[0, 1] > 0.8


def test_one_held_out_atom_in_a_thousand_is_novel() -> None:
    fit = DomainFit(2, 3)
    fit.add(*samples(20_000, 1))
    domain = fit.domain()
    features, species = samples(40_000, 2)
    calibrate(domain, domain.distance(features, species), species)
    share = float((domain(*samples(40_000, 3), **USUAL) > 1.0).double().mean())
    assert 0.2 * (1 - QUANTILE) < share < 3 * (1 - QUANTILE)
    far = features[:2] + torch.tensor([100.0, -100.0, 0.0])
    assert (domain(far, species[:2], **USUAL) > 3.0).all()


def test_a_species_never_seen_is_infinitely_novel() -> None:
    features, species = samples(100, 1)
    fit = DomainFit(3, 3)
    fit.add(features, species)
    domain = fit.domain()
    calibrate(domain, domain.distance(features, species), species)
    assert torch.isinf(domain(features[:1], torch.tensor([2]), **USUAL)).all()


@pytest.fixture
def potential() -> Potential:
    """Of ethanol, rattled: everything else is unknown to it."""
    torch.manual_seed(1)
    config = PolyadConfig(species=(1, 6, 8), num_channels=8, cutoff=4.0, lmax=2)
    potential = Potential(Polyad(config), {1: -13.0, 6: -1000.0, 8: -2000.0}).double().requires_grad_(False)
    frames = []
    for seed in range(60):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=seed)
        frames.append(Frame(positions=atoms.positions, atomic_numbers=atoms.numbers, energy=0.0))
    packed = [pack(part, 4.0, dtype=torch.float64, source="frames") for part in (frames[:40], frames[40:])]
    fit_domain(potential, packed[0], packed[1], batch_size=7)
    return potential.eval()


def test_known_and_unknown_molecules(potential: Potential) -> None:
    known, lone, radical = molecule("CH3CH2OH"), molecule("H2O")[:1], molecule("CH3CH2OH")
    known.rattle(0.05, seed=99)
    del radical[-1]
    graph = collate([build_graph(atoms, 4.0) for atoms in (known, lone, radical)])
    novelty = potential(graph, novelty=True)["novelty"]
    familiar = novelty[: len(known)].max()
    assert familiar < 1.3
    assert novelty[len(known)] > familiar
    assert novelty[len(known) + 1 :].max() > familiar
    assert "novelty" not in potential(graph)


def test_odd_electrons(potential: Potential, tmp_path: Path) -> None:
    methyl, methane, metal = molecule("CH3"), molecule("CH4"), molecule("CH3")
    methyl.set_initial_magnetic_moments(None)
    metal.cell, metal.pbc = [9.0, 9.0, 9.0], (True, False, False)
    graph = collate([build_graph(atoms, 4.0) for atoms in (methyl, methane, metal)])
    assert graph.odd_electrons.tolist() == [True, False, False]
    novelty = potential(graph, novelty=True)["novelty"].split([4, 5, 4])
    assert (novelty[0] >= 10.0).all()
    assert potential.domain is not None
    potential.domain.odd_electrons.fill_(True)
    usual = potential(graph, novelty=True)["novelty"].split([4, 5, 4])
    assert usual[0].min() < 10.0
    assert torch.equal(novelty[1], usual[1])
    assert torch.equal(novelty[2], usual[2])
    potential.domain.odd_electrons.fill_(False)
    save_potential(potential, tmp_path / "m.safetensors")
    methyl.calc = MLIPCalculator(tmp_path / "m.safetensors")
    with pytest.warns(OutsideDomainWarning, match="CH3 has an odd number of electrons"):
        methyl.get_potential_energy()


@pytest.mark.parametrize(
    ("formulas", "pbc", "odd"),
    [(["H2O", "CH4"], False, False), (["H2O", "OH"], False, True), (["OH"], True, True)],
)
def test_odd_electrons_of_the_training(
    formulas: list[str], pbc: bool, odd: bool, potential: Potential
) -> None:
    structures = [molecule(formula, cell=[9.0, 9.0, 9.0], pbc=pbc) for formula in formulas]
    frames = [Frame.from_atoms(atoms) for atoms in structures]
    data = pack(frames, 4.0, dtype=torch.float64, source="frames")
    fit_domain(potential, data, data, batch_size=2)
    assert potential.domain is not None
    assert bool(potential.domain.odd_electrons) is odd


def test_periodic_structures(potential: Potential) -> None:
    """Those that meet their images, where there were only molecules; not a molecule in a wide box."""
    dense, lone, free = (molecule("CH4") for _ in range(3))
    dense.cell, dense.pbc = [4.0, 4.0, 4.0], True
    lone.cell, lone.pbc = [30.0, 30.0, 30.0], True
    lone.center()
    graph = collate([build_graph(atoms, 4.0) for atoms in (dense, lone, free)])
    assert graph.meets_images.tolist() == [True, False, False]
    assert potential.domain is not None
    assert not potential.domain.periodic
    novelty = potential(graph, novelty=True)["novelty"].view(3, 5)
    assert (novelty[0] >= 10.0).all()
    assert torch.allclose(novelty[1], novelty[2])
    with pytest.warns(OutsideDomainWarning, match="CH4 is periodic, but the model was trained on molecules"):
        warn_if_novel(dense, novelty[0].numpy())
    potential.domain.periodic.fill_(True)
    assert potential(graph, novelty=True)["novelty"][:5].min() < 10.0


@pytest.mark.parametrize("pbc", [False, True])
def test_periodic_structures_of_the_training(pbc: bool, potential: Potential) -> None:
    frames = [Frame.from_atoms(molecule(name, cell=[9.0] * 3, pbc=pbc)) for name in ("H2O", "CH4")]
    data = pack(frames, 4.0, dtype=torch.float64, source="frames")
    fit_domain(potential, data, data, batch_size=2)
    assert potential.domain is not None
    assert bool(potential.domain.periodic) is pbc


def test_travels_with_the_model(potential: Potential, tmp_path: Path) -> None:
    save_potential(potential, tmp_path / "m.safetensors")
    again = load_potential(tmp_path / "m.safetensors")
    graph = build_graph(molecule("CH3CH2OH"), 4.0)
    before, after = (p(graph, novelty=True)["novelty"] for p in (potential, again))
    assert torch.allclose(before, after, rtol=1e-3)


def test_the_calculator_warns_once(potential: Potential) -> None:
    known, strange = molecule("CH3CH2OH"), molecule("CO2")
    known.calc = strange.calc = MLIPCalculator(potential)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known.get_potential_energy()
    with pytest.warns(OutsideDomainWarning, match=r"\d of 3 atoms of CO2 have surroundings unlike any"):
        strange.get_potential_energy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strange.rattle(0.01)
        strange.get_potential_energy()


def test_the_bundled_model_knows_organic_molecules() -> None:
    """Its domain belongs to the weights it ships with."""
    aspirin = read(Path(__file__).parent.parent / "examples" / "aspirin.xyz")
    known = [aspirin, *(molecule(name) for name in ("CH3CH2OH", "C6H6", "CH3CN", "CH3Cl", "CH3SCH3"))]
    squeezed = molecule("CH3CH2OH")
    squeezed.positions[1] = 0.5 * (squeezed.positions[0] + squeezed.positions[1])
    methyl, crystal = molecule("CH3"), bulk("C")
    methyl.set_initial_magnetic_moments(None)
    found = BatchCalculator("default").evaluate([*known, methyl, crystal, squeezed])
    assert max(one.novelty.max() for one in found[:-3] if one.novelty is not None) < 0.7
    for one in found[-3:]:
        assert one.novelty is not None
        assert one.novelty.max() > 2.0
