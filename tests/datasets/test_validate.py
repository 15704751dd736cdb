from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlip.datasets import Frame, read_frames, read_isolated_atoms
from mlip.datasets.consistency import energy_jumps, force_slope, shear_order, stress_slope
from mlip.datasets.geometry import closest_pair
from mlip.datasets.suspicion import scott_energy
from mlip.datasets.validate import Finding, validate_frames, without_faults
from mlip.errors import InputError
from mlip.units import GPA, HARTREE, HARTREE_PER_BOHR, KBAR, KCAL_PER_MOL


def _found(frames: list[Frame], **options: Any) -> dict[str, Finding]:
    return {f.check: f for f in validate_frames(frames, **options)}


def _pair(distance: float, **values: Any) -> Frame:
    options = {
        "positions": np.array([[0, 0, 0], [0, 0, distance]]),
        "atomic_numbers": np.array([1, 1]),
        **values,
    }
    return Frame(**options)


SOUND = [("acac", "train_300K.xyz"), ("ethanol", "train.xyz"), ("rmd17", "rmd17_aspirin_train_01.npz")]
SOUND += [("mlearn/Si", "training.json.gz"), ("mlearn/Li", "test.json"), ("mlearn/Mo", "training.json.gz")]


@pytest.mark.parametrize("parts", SOUND)
def test_published_data_passes(shared_data: Path, parts: tuple[str, str]) -> None:
    findings = validate_frames(read_frames(shared_data / parts[0] / parts[1]), require=["energy", "forces"])
    assert [f for f in findings if f.severity != "note"] == []


def test_isolated_atoms_fit(shared_data: Path) -> None:
    frames = read_frames(shared_data / "acac" / "train_300K.xyz", index=":20")
    e0s = read_isolated_atoms(shared_data / "acac" / "isolated_atoms.xyz")
    assert validate_frames(frames, e0s=e0s, require=["energy"]) == validate_frames(frames)
    hartree = [replace(f, energy=f.energy / HARTREE) for f in frames if f.energy is not None]
    found = _found(hartree, e0s=e0s)
    assert found["energies do not fit the isolated atoms (units? level of theory?)"].count == 20
    assert "energies look like hartree, not eV" in found
    assert "elements without an isolated atom" in _found(frames, e0s={1: -13.6, 6: -1029.0})


@pytest.mark.parametrize(("unit", "factor"), [("hartree", HARTREE), ("kcal/mol", KCAL_PER_MOL)])
def test_units_of_all_electron_energies(shared_data: Path, unit: str, factor: float) -> None:
    frames = read_frames(shared_data / "ethanol" / "train.xyz", index=":10")
    wrong = [replace(f, energy=f.energy / factor) for f in frames if f.energy is not None]
    assert _found(wrong)[f"energies look like {unit}, not eV"].count == 10


def test_scott_formula() -> None:
    """Total energies of noble gas atoms, hartree: Chakravorty et al., Phys. Rev. A 47, 3649 (1993)."""
    for z, energy in ((10, -128.938), (18, -527.540)):
        assert scott_energy(np.array([z])) / HARTREE == pytest.approx(energy, rel=0.01)


@pytest.mark.parametrize("name", ["positions", "cell", "energy", "forces", "stress"])
def test_nan(name: str) -> None:
    shape = {"positions": (2, 3), "cell": (3, 3), "energy": (), "forces": (2, 3), "stress": (3, 3)}[name]
    value = np.full(shape, np.nan)
    finding = _found([_pair(0.8), _pair(0.8, **{name: value})])["NaN or infinity"]
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.example == f"frame 1: `{name}` holds NaN or infinity"


def test_overlaps() -> None:
    found = _found([_pair(0.8), _pair(0.2), _pair(0.1), _pair(0.4)])
    near, close = found["atoms closer than 0.3 Å"], found["atoms closer than 0.5 Å"]
    assert (near.severity, near.count, near.example) == (
        "error",
        2,
        "frame 1: atoms 0 and 1 are 0.2000 Å apart",
    )
    assert (close.severity, close.count) == ("warning", 1)


@pytest.mark.parametrize("seed", range(20))
def test_closest_pair_against_all_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pbc = rng.integers(0, 2, size=3).astype(bool)
    cell = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    positions = rng.uniform(-9, 9, size=(6, 3))
    shifts = (np.array(list(np.ndindex(5, 5, 5))) - 2) * pbc @ cell
    positions = np.vstack(
        [positions, positions[2] + shifts[rng.integers(125)] + 0.1]
    )  # 0.17 Å from an image of 2
    frame = Frame(positions, np.ones(7, dtype=int), cell, pbc)
    wide = (
        (np.array(list(np.ndindex(41, 41, 41))) - 20)[:, pbc] @ cell[pbc] if pbc.any() else np.zeros((1, 3))
    )
    wide = np.unique(wide, axis=0)
    slow = min(
        (float(np.linalg.norm(positions[j] - positions[i] + wide, axis=1).min()), i, j)
        for i in range(7)
        for j in range(i + 1, 7)
    )
    pair = closest_pair(frame, within=0.2)
    assert pair is not None
    assert pair[0] == pytest.approx(slow[0])
    assert pair[1:] == slow[1:]
    assert closest_pair(frame, within=slow[0] * 0.999) is None


def test_cells() -> None:
    flat = _pair(0.8, cell=np.diag([5.0, 5.0, 0.0]), pbc=True)
    slab = _pair(0.8, cell=np.diag([5.0, 5.0, 0.0]), pbc=[True, True, False])
    found = _found([slab, flat])
    assert found["periodic cell without volume"].severity == "error"
    assert found["periodic cell without volume"].example.startswith("frame 1")
    assert found["partly periodic"] == Finding(
        "note", "partly periodic", 1, "frame 0: periodic along 2 of 3 lattice vectors"
    )


def test_elements() -> None:
    assert (
        _found([_pair(0.8, atomic_numbers=[1, 119])])["unknown element"].example
        == "frame 0: atomic number 119"
    )


def test_missing_labels() -> None:
    frames = [_pair(0.8, energy=-1.0), _pair(0.9)]
    assert _found(frames)["no energy"].severity == "warning"
    assert _found(frames)["no forces"].severity == "note"
    strict = _found(frames, require=["energy", "forces", "stress"])
    assert strict["no energy"].severity == strict["no forces"].severity == "error"
    assert "no stress" not in strict  # molecules
    with pytest.raises(InputError, match="`require` holds 'dipole' but may hold only energy, forces, stress"):
        validate_frames(frames, require=["dipole"])


def test_duplicates_and_contradictions() -> None:
    found = _found(
        [_pair(0.8, energy=-1.0), _pair(0.9, energy=-1.0), _pair(0.8, energy=-1.0), _pair(0.9, energy=-2.0)]
    )
    assert found["duplicate frames"] == Finding("warning", "duplicate frames", 1, "frames 0 and 2")
    assert found["one structure, two different labels"].severity == "error"
    assert found["one structure, two different labels"].example == "frames 1 and 3"


def test_forces_and_stresses() -> None:
    net = _pair(0.8, forces=np.array([[0, 0, 1.0], [0, 0, 0]]))
    large = _pair(0.8, forces=np.array([[0, 0, 60.0], [0, 0, -60.0]]))
    found = _found([net, large])
    assert found["forces do not add up to zero"].example == "frame 0: forces add up to 1 eV/Å"
    assert found["forces above 50 eV/Å"].example == "frame 1: a force of 60 eV/Å"
    assert found["forces look like another unit than eV/Å"].count == 2
    crystal = _pair(0.8, cell=5 * np.eye(3), pbc=True, stress=np.array([[2.0, 1, 0], [0, 2, 0], [0, 0, 2]]))
    found = _found([crystal, _pair(0.7, stress=np.eye(3) * 0.01)])
    assert "asymmetric stress" in found
    assert found["stress of a molecule"].example.startswith("frame 1")
    assert "is 320.4 GPa" in found["stresses look like another unit than eV/Å³"].example


def test_charge_and_spin() -> None:
    found = _found([_pair(0.8, charge=1), _pair(0.7, charge=1, spin=2)])
    finding = found["charge and multiplicity do not fit"]
    assert (finding.count, finding.example) == (
        1,
        "frame 0: 1 electrons cannot have multiplicity 1 (`spin` is 2S + 1)",
    )


def test_outlier() -> None:
    energies = -31 + 0.01 * np.random.default_rng(0).normal(size=30)
    energies[17] += 5
    frames = [_pair(0.8 + 0.001 * i, energy=float(e)) for i, e in enumerate(energies)]
    finding = _found(frames)["outlying energies"]
    assert finding.count == 1
    assert finding.example.startswith("frame 17 (H2) is +2.499")


def _trajectory(*, energy: float = 1.0, forces: float = 1.0) -> list[Frame]:
    """A harmonic dimer, k = 30 eV/Å²."""
    frames = []
    for r in 0.8 + 0.1 * np.sin(np.linspace(0, 6, 30)):
        pull = 30.0 * (r - 0.75) * forces
        labels = {
            "energy": energy * (15.0 * (r - 0.75) ** 2 - 31),
            "forces": np.array([[0, 0, pull], [0, 0, -pull]]),
        }
        frames.append(_pair(float(r), **labels))
    return frames


def test_forces_derive_from_energies() -> None:
    slope = force_slope(_trajectory())
    assert slope is not None
    assert slope.slope == pytest.approx(1.0, abs=1e-10)  # the trapezoidal rule is exact for a parabola
    assert not any("derive" in name for name in _found(_trajectory()))
    assert "forces do not derive from the energies: the sign is wrong" in _found(_trajectory(forces=-1))
    name = "forces do not derive from the energies: energies in hartree, forces in eV/Å"
    assert name in _found(_trajectory(energy=1 / HARTREE))
    name = "forces do not derive from the energies: energies in eV, forces in kcal/mol/Å"
    assert name in _found(_trajectory(forces=1 / KCAL_PER_MOL))
    name = "forces do not derive from the energies: energies in hartree, forces in hartree/bohr"
    found = _found(_trajectory(energy=1 / HARTREE, forces=1 / HARTREE_PER_BOHR))
    assert found[name].severity == "error"
    assert found[name].frames == ()


@pytest.mark.parametrize(
    ("factor", "reason"),
    [(-1.0, "the sign is wrong"), (1 / GPA, "stress in GPa"), (-1 / KBAR, "stress in kbar with VASP's sign")],
)
def test_stresses_derive_from_energies(shared_data: Path, factor: float, reason: str) -> None:
    frames = read_frames(shared_data / "mlearn" / "Si" / "training.json.gz")
    frames_wrong = [replace(f, stress=f.stress * factor) for f in frames if f.stress is not None]
    assert f"stresses do not derive from the energies: {reason}" in _found(frames_wrong)


def _shuffled(stress: np.ndarray, order: tuple[int, int, int]) -> np.ndarray:
    """The shear components yz xz xy replaced by those at the places in `order`."""
    yz, xz, xy = (float(stress[[1, 0, 0][k], [2, 2, 1][k]]) for k in order)
    xx, yy, zz = np.diag(stress).tolist()
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _sheared(count: int = 40) -> list[Frame]:
    """A crystal of cubic elasticity under random small strains: E = V₀ (C/2) η : η, σ = C η / (V / V₀)."""
    rng, frames = np.random.default_rng(3), []
    for _ in range(count):
        strain = rng.normal(size=(3, 3)) * 0.01
        strain = strain + strain.T
        cell = 5.0 * (np.eye(3) + strain)
        energy = 125.0 * 0.5 * float((strain**2).sum())
        stress = strain * 125.0 / abs(np.linalg.det(cell))
        frames.append(
            Frame(
                positions=np.zeros((1, 3)),
                atomic_numbers=[14],
                cell=cell,
                pbc=True,
                energy=energy,
                stress=stress,
            )
        )
    return frames


def test_order_of_the_shear_components(shared_data: Path) -> None:
    name = "shear stresses are in the wrong order"
    frames = _sheared()
    assert shear_order(frames) is None
    for order, stored in (((2, 0, 1), "xy yz xz"), ((1, 0, 2), "xz yz xy"), ((0, 2, 1), "yz xy xz")):
        wrong = [replace(f, stress=_shuffled(f.stress, order)) for f in frames]
        assert " ".join(shear_order(wrong) or ()) == stored
        assert stored in _found(wrong)[name].example
    assert "VASP" in _found([replace(f, stress=_shuffled(f.stress, (2, 0, 1))) for f in frames])[name].example
    assert shear_order(read_frames(shared_data / "mlearn" / "Si" / "training.json.gz")) is None


def test_jumps_of_the_energy() -> None:
    """One calculation in another electronic state stands out at both ends; frames are taken by their step."""
    frames = [replace(f, trajectory="t", step=i) for i, f in enumerate(_trajectory())]
    assert energy_jumps(frames) == []
    frames[11] = replace(frames[11], energy=(frames[11].energy or 0.0) + 0.3)
    order = np.random.default_rng(0).permutation(30).tolist()
    shuffled = [frames[i] for i in order]
    jumps = energy_jumps(shuffled)
    assert [(order[j.first], order[j.second]) for j in jumps] == [(10, 11), (11, 12)]
    assert [j.energy for j in jumps] == pytest.approx([0.3, -0.3], abs=0.02)
    assert _found(shuffled)["energies jump along a trajectory"].count == 2
    assert energy_jumps(_trajectory(energy=1 / HARTREE)) == []


def test_isolated_atoms_of_the_file_are_used() -> None:
    atom = Frame(np.zeros((1, 3)), [1], energy=-13.6, info={"config_type": "IsolatedAtom"})
    name = "energies do not fit the isolated atoms (units? level of theory?)"
    assert name not in _found([atom, _pair(0.75, energy=-31.8)])
    assert _found([atom, _pair(0.75, energy=-1.17)])[name].count == 1


def test_net_force_of_a_crystal() -> None:
    crystal = _pair(0.8, cell=5 * np.eye(3), pbc=True, forces=np.array([[0, 0, 1.0], [0, 0, 0]]))
    assert "forces do not add up to zero" in _found([crystal])


def test_without_faults() -> None:
    frames = [
        _pair(0.8, energy=-1.0),
        _pair(0.9, energy=-1.0),
        _pair(0.8, energy=-1.0),
        _pair(0.95, energy=-1.0),
        _pair(0.9, energy=-2.0),
        _pair(0.7, energy=float("nan")),
        _pair(0.45, energy=-1.0),
        _pair(1.0),
    ]
    kept = without_faults(frames, validate_frames(frames))
    assert [frames.index(f) for f in kept] == [0, 3, 6, 7]
    kept = without_faults(frames, validate_frames(frames, require=["energy"]))
    assert [frames.index(f) for f in kept] == [0, 3, 6]


def test_too_few_pairs_say_nothing() -> None:
    assert force_slope(_trajectory()[:3]) is None
    assert stress_slope(_trajectory()) is None


def test_worst_first() -> None:
    flat = _pair(0.8, cell=np.diag([5.0, 5.0, 0.0]), pbc=True)
    slab = _pair(0.4, cell=np.diag([5.0, 5.0, 0.0]), pbc=[True, True, False])
    severities = [f.severity for f in validate_frames([slab, flat])]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(set(severities)) == 3
