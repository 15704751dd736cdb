"""Phonons: the exact crystal of nearest neighbours, commensurate supercells, thermal limits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlip.calculators.surface import ASESurface, finite_difference_hessian
from mlip.errors import InputError
from mlip.search.phonons import Phonons, automatic_supercell, phonons
from mlip.search.vibrations import normal_modes
from mlip.units import BOLTZMANN, INVERSE_CM, VIBRATIONAL_QUANTUM

pytest.importorskip("phonopy", reason="the phonons extra is not installed")

LATTICE = 1.587401052
"""Of the fcc crystal whose nearest neighbours, alone, interact by the Lennard-Jones potential; ε = σ = 1."""

SPRING = 57.146438
"""ε/σ²; second derivative of that potential at its minimum."""


def nearest_neighbours() -> LennardJones:
    """The next shell is at 1.587 σ."""
    return LennardJones(sigma=1.0, epsilon=1.0, rc=1.35)


class Counting(ASESurface):
    """Remembers how many structures came in each call."""

    def __init__(self, calculator) -> None:
        super().__init__(calculator)
        self.calls: list[int] = []

    def evaluate(self, structures, *, stress: bool = False, hessian: bool = False):
        self.calls.append(len(structures))
        return super().evaluate(structures, stress=stress, hessian=hessian)


@pytest.fixture(scope="module")
def copper() -> Phonons:
    return phonons(bulk("Cu", a=3.59), EMT(), supercell=(2, 2, 2), mesh=(12, 12, 12))


def test_nearest_neighbour_crystal() -> None:
    """ω²m/k: X 4, 4, 8; L 2, 2, 8; W 4, 6, 6, from the dynamical matrix by hand."""
    atoms = bulk("Ar", "fcc", a=LATTICE)
    atoms.set_masses([1.0])
    found = phonons(
        atoms,
        nearest_neighbours(),
        supercell=(3, 3, 3),
        mesh=(4, 4, 4),
        temperatures=[300.0],
        displacement=1e-4,
    )
    squared = {
        name: (segment.frequencies[end] * INVERSE_CM / VIBRATIONAL_QUANTUM) ** 2 / SPRING
        for segment in found.bands
        for end, name in ((0, segment.labels[0]), (-1, segment.labels[1]))
    }
    for name, expected in {"G": [0, 0, 0], "X": [4, 4, 8], "L": [2, 2, 8], "W": [4, 6, 6]}.items():
        np.testing.assert_allclose(squared[name], expected, atol=1e-4)
    assert found.stable
    assert found.displaced == 1


def test_commensurate_modes_are_those_of_the_supercell(copper: Phonons) -> None:
    """Frequencies of the Hessian of a cubic cell of four atoms by finite displacements, to 0.1 cm⁻¹: they are
    those at Γ and the three X."""
    cubic = bulk("Cu", a=3.59, cubic=True)
    found = phonons(cubic, EMT(), supercell=(1, 1, 1), mesh=(2, 2, 2), temperatures=[300.0])
    assert len(found.primitive) == 1
    assert found.supercell_atoms == 4
    cubic.calc = EMT()
    expected = normal_modes(cubic, finite_difference_hessian(cubic)).frequencies
    points = {end: s.frequencies[k] for s in found.bands for k, end in ((0, s.labels[0]), (-1, s.labels[1]))}
    np.testing.assert_allclose(np.sort(np.tile(points["X"], 3)), expected, atol=0.1)
    np.testing.assert_allclose(points["G"], 0.0, atol=0.1)


def test_density_of_states_and_heat_capacity(copper: Phonons) -> None:
    assert np.trapezoid(copper.dos, copper.dos_frequencies) == pytest.approx(3.0, abs=0.03)
    assert copper.heat_capacity[-1] / BOLTZMANN == pytest.approx(3.0, abs=0.03)  # Dulong and Petit, 1000 K
    assert (copper.temperatures[0], copper.temperatures[-1]) == (0.0, 1000.0)
    assert copper.heat_capacity[0] == copper.entropy[0] == 0.0
    assert copper.free_energy[0] == pytest.approx(copper.zero_point_energy, rel=1e-6)
    # F = ½∫hν g + kT ∫ ln(1 − exp(−hν/kT)) g, from the density of states alone
    real = copper.dos_frequencies > 1.0
    quanta, density = copper.dos_frequencies[real] * INVERSE_CM, copper.dos[real]
    thermal = BOLTZMANN * 300.0
    energies = quanta / 2 + thermal * np.log1p(-np.exp(-quanta / thermal))
    free = np.trapezoid(energies * density, copper.dos_frequencies[real])
    assert copper.free_energy[30] == pytest.approx(free, abs=1e-3)
    slope = (copper.free_energy[31] - copper.free_energy[29]) / 20.0
    assert copper.entropy[30] == pytest.approx(-slope, rel=1e-3)


def test_the_path_is_continuous_and_starts_at_gamma(copper: Phonons) -> None:
    assert copper.bands[0].labels == ("G", "X")
    np.testing.assert_allclose(copper.bands[0].frequencies[0], 0.0, atol=0.1)
    for first, second in zip(copper.bands, copper.bands[1:], strict=False):
        assert second.distances[0] == pytest.approx(first.distances[-1])
        if first.labels[1] == second.labels[0]:
            np.testing.assert_allclose(first.frequencies[-1], second.frequencies[0], atol=1e-6)


def test_unstable_crystals_are_reported() -> None:
    """Simple cubic copper."""
    found = phonons(bulk("Cu", "sc", a=2.4), EMT(), supercell=(3, 3, 3), mesh=(6, 6, 6))
    assert not found.stable
    assert found.lowest_frequency < -10.0
    assert 0.0 < found.imaginary_fraction < 1.0
    assert len(found.lowest_qpoint) == 3


def test_all_supercells_are_one_call() -> None:
    atoms = bulk("NiAl", "cesiumchloride", a=2.86)
    surface = Counting(EMT())
    found = phonons(atoms, surface, supercell=(2, 2, 2), mesh=(4, 4, 4), temperatures=[300.0])
    assert surface.calls == [found.displaced]
    assert found.displaced == 2


def test_file_is_read_by_phonopy(copper: Phonons, tmp_path) -> None:
    import phonopy

    copper.save(tmp_path / "copper.yaml")
    again = phonopy.load(tmp_path / "copper.yaml", log_level=0)
    again.run_qpoints([[0.5, 0.5, 0.0]])
    ours = next(s.frequencies[-1] for s in copper.bands if s.labels == ("G", "X"))
    np.testing.assert_allclose(np.array(again.qpoints.frequencies[0]) * 33.35641, ours, atol=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["copper.yaml"]


def test_automatic_supercell() -> None:
    assert automatic_supercell(bulk("Cu", a=3.6, cubic=True)) == (3, 3, 3)
    assert automatic_supercell(bulk("Si")) == (4, 4, 4)  # faces of the primitive cell are 3.14 Å apart
    assert automatic_supercell(Atoms("H", cell=[5, 12, 10.0], pbc=True)) == (2, 1, 1)


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (molecule("H2O"), {}, "not periodic in three directions"),
        (Atoms(), {}, "no atoms"),
        (
            bulk("Cu"),
            {"supercell": (2, 2)},
            r"`supercell` is \[2, 2\] but must be three whole numbers, 1 or more",
        ),
        (bulk("Cu"), {"supercell": (2, 0, 2)}, r"`supercell` is \[2, 0, 2\]"),
        (bulk("Cu"), {"mesh": (-1, 2, 2)}, r"`mesh` is \[-1, 2, 2\]"),
        (bulk("Cu"), {"temperatures": [-5.0]}, r"`temperatures` holds -5\.0"),
        (bulk("Cu"), {"displacement": 0.0}, r"`displacement` is 0\.0"),
    ],
)
def test_what_is_refused(atoms: Atoms, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        phonons(atoms, EMT(), **options)


def test_without_phonopy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(InputError, match=r'pip install "polyad\[phonons\]"'):
        phonons(bulk("Cu"), EMT())
