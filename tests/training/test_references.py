"""What is measured before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlip.datasets import Frame
from mlip.datasets.write import write_frames
from mlip.errors import InputError
from mlip.training.config import ReferenceEnergies
from mlip.training.packed import pack
from mlip.training.references import collect_species, measure, reference_energies


def atom(z: int, energy: float) -> Frame:
    return Frame(
        positions=np.zeros((1, 3)),
        atomic_numbers=np.array([z]),
        energy=energy,
        info={"config_type": "IsolatedAtom"},
    )


def test_species(frames: list[Frame]) -> None:
    assert collect_species(frames, ["C"]) == (1, 6, 8)
    with pytest.raises(InputError, match=r"`data\.species`: 'Xq' is not the symbol of an element"):
        collect_species(frames, ["Xq"])


def test_least_squares_recovers_a_sum_over_atoms() -> None:
    e0s = {1: -13.0, 6: -1000.0, 8: -2000.0}
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(6):
        numbers = rng.choice([1, 6, 8], 5)
        energy = sum(e0s[int(z)] for z in numbers)
        frames.append(Frame(positions=rng.normal(size=(5, 3)), atomic_numbers=numbers, energy=energy))
    found = reference_energies(ReferenceEnergies(method="least-squares"), (1, 6, 8), frames, [])
    assert found == pytest.approx(e0s)


def test_other_methods(tmp_path: Path) -> None:
    path = tmp_path / "atoms.xyz"
    write_frames(path, [atom(1, -13.0), atom(8, -430.0)])
    from_file = ReferenceEnergies(method="isolated", file=path)
    assert reference_energies(from_file, (1, 8), [], []) == {1: -13.0, 8: -430.0}
    isolated = [atom(1, -12.0), atom(8, -429.0)]
    assert reference_energies(ReferenceEnergies(method="isolated"), (1, 8), [], isolated) == {
        1: -12.0,
        8: -429.0,
    }
    given = ReferenceEnergies(method="given", values={"H": -1.0, "O": -2.0, "C": 0.0})
    assert reference_energies(given, (1, 8), [], []) == {1: -1.0, 8: -2.0}
    assert reference_energies(ReferenceEnergies(method="zero"), (1, 8), [], []) == {1: 0.0, 8: 0.0}


def test_the_file_is_read_under_the_key_of_the_training_energies(tmp_path: Path) -> None:
    path = tmp_path / "atoms.xyz"
    path.write_text("1\nenergy=-1.0 dft2_energy=-13.5 config_type=IsolatedAtom\nH 0 0 0\n")
    config = ReferenceEnergies(method="isolated", file=path)
    assert reference_energies(config, (1,), [], [], energy_key="dft2_energy") == {1: -13.5}
    with pytest.raises(
        InputError, match=r"no frame has the energy key `dft3`.*`data\.keys\.energy`, which is 'dft3': name"
    ):
        reference_energies(config, (1,), [], [], energy_key="dft3")


def test_isolated_atoms_of_the_training_file_must_agree() -> None:
    config = ReferenceEnergies(method="isolated")
    bare = Frame(np.zeros((1, 3)), np.array([1]), info={"config_type": "IsolatedAtom"})
    assert reference_energies(config, (1,), [], [bare, atom(1, -13.0), atom(1, -13.0)]) == {1: -13.0}
    with pytest.raises(InputError, match=r"the training file: two isolated H atoms .* -13\.0 and -12\.0 eV"):
        reference_energies(config, (1,), [], [atom(1, -13.0), atom(1, -12.0)])


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "atoms.xyz"
    write_frames(path, [atom(1, -13.0)])
    with pytest.raises(InputError, match=r"atoms\.xyz has no isolated-atom energy of C, O; add it"):
        reference_energies(ReferenceEnergies(method="isolated", file=path), (1, 6, 8), [], [])
    with pytest.raises(InputError, match=r"the training file has no isolated-atom energy of O; give a file"):
        reference_energies(ReferenceEnergies(method="isolated"), (1, 8), [], [atom(1, -13.0)])
    with pytest.raises(InputError, match=r"`e0s\.file` '.*none\.xyz' does not exist"):
        reference_energies(ReferenceEnergies(method="isolated", file=tmp_path / "none.xyz"), (1,), [], [])
    with pytest.raises(InputError, match=r"`e0s\.values`: 'Hh' is not the symbol"):
        reference_energies(ReferenceEnergies(method="given", values={"Hh": 1.0}), (1,), [], [])
    nothing = Frame(positions=np.zeros((1, 3)), atomic_numbers=np.array([1]))
    with pytest.raises(InputError, match="no training frame has one; use `e0s: zero`"):
        reference_energies(ReferenceEnergies(), (1,), [nothing], [])


def test_statistics(frames: list[Frame]) -> None:
    statistics = measure(pack(frames, 3.0, dtype=torch.float64), {1: -13.5, 8: -430.0})
    atoms, edges = sum(map(len, frames)), sum(len(f) * (len(f) - 1) for f in frames)
    assert statistics.avg_num_neighbors == pytest.approx(edges / atoms)
    forces = np.concatenate([f.forces for f in frames])
    assert statistics.energy_scale == pytest.approx(np.sqrt(np.mean(forces**2)))


def test_scale_without_forces(frames: list[Frame]) -> None:
    packed = pack(frames, 3.0, dtype=torch.float64)
    packed.forces[:] = torch.nan
    per_atom = [
        (f.energy - sum({1: -13.5, 8: -430.0}[int(z)] for z in f.atomic_numbers)) / len(f) for f in frames
    ]
    assert measure(packed, {1: -13.5, 8: -430.0}).energy_scale == pytest.approx(np.std(per_atom))
