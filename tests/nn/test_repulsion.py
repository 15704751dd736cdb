from __future__ import annotations

import ase.units
import numpy as np
import pytest
import torch
from ase.data import covalent_radii

from mlip.nn.repulsion import COULOMB, ZBLRepulsion


def zbl(z1: int, z2: int, r: float) -> float:
    """Screened nuclei, eV: the universal potential, with the screening length from the Bohr radius."""
    a = 0.8854 * ase.units.Bohr / (z1**0.23 + z2**0.23)
    c, d = np.array([0.18175, 0.50986, 0.28022, 0.02817]), np.array([3.1998, 0.94229, 0.4029, 0.20162])
    return float(z1 * z2 * ase.units.Hartree * ase.units.Bohr / r * (c * np.exp(-d * r / a)).sum())


def pair_energy(module: ZBLRepulsion, i: int, j: int, r: float) -> torch.Tensor:
    vectors = torch.tensor([[0.0, 0.6 * r, 0.8 * r], [0.0, -0.6 * r, -0.8 * r]], dtype=torch.float64)
    return module(torch.tensor([i, j]), torch.tensor([1, 0]), torch.tensor([0, 1]), vectors)


def test_constants() -> None:
    assert pytest.approx(ase.units.Hartree * ase.units.Bohr, rel=1e-8) == COULOMB
    module = ZBLRepulsion((1, 8), 5.0)
    assert float(module.amplitudes.sum()) == pytest.approx(1.0)  # bare nuclei at r = 0


@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2)])
@pytest.mark.parametrize("r", [0.01, 0.1, 0.3])
def test_formula(i: int, j: int, r: float) -> None:
    """Where the envelope is still nearly one; both atoms carry half."""
    species = (1, 8, 42)
    energy = pair_energy(ZBLRepulsion(species, 5.0), i, j, r)
    x = r / (covalent_radii[species[i]] + covalent_radii[species[j]])
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    assert float(energy.sum()) == pytest.approx(envelope * zbl(species[i], species[j], r), rel=2e-4)
    assert float(energy[0]) == pytest.approx(float(energy[1]), rel=1e-14)


def test_known_values() -> None:
    """Si–Si without envelope: 14² e²/(4πε0 r) φ(r/a), evaluated by hand for r = a: φ(1) = 0.4164."""
    a = 0.46850 / (2 * 14**0.23)
    phi = (
        0.18175 * np.exp(-3.1998)
        + 0.50986 * np.exp(-0.94229)
        + 0.28022 * np.exp(-0.4029)
        + 0.02817 * np.exp(-0.20162)
    )
    assert phi == pytest.approx(0.4164, abs=2e-4)
    energy = float(pair_energy(ZBLRepulsion((14,), 5.0), 0, 0, a).sum())
    assert energy == pytest.approx(196 * 14.399645 / a * phi, rel=1e-5)


@pytest.mark.parametrize("cutoff", [5.0, 1.0])
def test_reach(cutoff: float) -> None:
    """Gone, with two derivatives, at the sum of covalent radii or the cutoff."""
    module = ZBLRepulsion((14,), cutoff)
    reach = min(2 * covalent_radii[14], cutoff)
    assert float(pair_energy(module, 0, 0, 0.99 * reach).sum()) > 0
    for r in (reach, 1.01 * reach):
        assert abs(float(pair_energy(module, 0, 0, r).sum())) < 1e-11
    h = 1e-4
    assert float(pair_energy(module, 0, 0, reach - h).sum()) < 1e-6 * zbl(14, 14, reach)


def test_no_edges() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert not ZBLRepulsion((1,), 5.0)(
        torch.zeros(3, dtype=torch.int64), none, none, torch.zeros(0, 3).double()
    ).any()


def test_precision_survives_conversion() -> None:
    module = ZBLRepulsion((1, 8), 5.0)
    before = pair_energy(module, 0, 1, 0.5)
    assert torch.equal(pair_energy(module.float().double(), 0, 1, 0.5), before)
