from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.units
import numpy as np
import pytest

from mlip.datasets import LabelKeys, read_frames
from mlip.errors import InputError

UNIT = ase.units.kcal / ase.units.mol


def test_aspirin(shared_data: Path) -> None:
    path = shared_data / "rmd17" / "rmd17_aspirin_train_01.npz"
    frames = read_frames(path)
    assert len(frames) == 1000
    assert frames[0].formula == "C9H8O4"
    with np.load(path) as raw:
        assert frames[7].energy == pytest.approx(raw["energies"][7] * UNIT, rel=1e-13)
        np.testing.assert_allclose(frames[7].forces, raw["forces"][7] * UNIT, rtol=1e-13)
        np.testing.assert_array_equal(frames[7].positions, raw["coords"][7])
    assert frames.report.sources["energy"] == {"energies (kcal/mol)": 1000}


def _arrays(**change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        "z": np.array([8, 1, 1]),
        "R": rng.normal(size=(4, 3, 3)),
        "E": np.arange(4.0),
        "F": np.ones((4, 3, 3)),
    }
    return {k: v for k, v in {**arrays, **change}.items() if v is not None}


@pytest.mark.parametrize("column", [False, True])
def test_sgdml_energies_of_either_shape(tmp_path: Path, column: bool) -> None:
    energies = np.arange(4.0)[:, None] if column else np.arange(4.0)
    np.savez(tmp_path / "a.npz", **_arrays(E=energies))
    frames = read_frames(tmp_path / "a.npz")
    assert [f.energy for f in frames] == pytest.approx((np.arange(4.0) * UNIT).tolist())
    assert frames[0].forces is not None
    assert frames[0].forces[0, 0] == pytest.approx(UNIT)


def test_units_and_lattice_of_sgdml(tmp_path: Path) -> None:
    lattice = np.array([[5.0, 1.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 7.0]])
    np.savez(tmp_path / "a.npz", **_arrays(e_unit="Hartree", r_unit=np.array("bohr"), lattice=lattice))
    frame = read_frames(tmp_path / "a.npz")[1]
    assert frame.energy == pytest.approx(ase.units.Hartree)
    assert frame.forces is not None
    assert frame.forces[0, 0] == pytest.approx(ase.units.Hartree / ase.units.Bohr)
    np.testing.assert_allclose(frame.cell, lattice.T * ase.units.Bohr)  # vectors are columns there
    assert frame.pbc.all()


def test_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_arrays(E=None, F=None))
    frame = read_frames(tmp_path / "a.npz")[0]
    assert (frame.energy, frame.forces) == (None, None)


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    np.savez(tmp_path / "a.npz", **_arrays(extra=np.array([Trap(trap)], dtype=object)))
    with pytest.raises(InputError, match=r"a\.npz: holds pickled objects, which are refused"):
        read_frames(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"\x80\x04." * 10)
    with pytest.raises(InputError, match=r"b\.npz: "):
        read_frames(tmp_path / "b.npz")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2), "b": np.zeros(2)}, "has the keys `a`, `b`, but rMD17 has nuclear_charges"),
        (_arrays(z=np.array([8, 1])), r"`z` has shape \(2,\) and `R` \(4, 3, 3\)"),
        (_arrays(E=np.zeros(3)), r"`E` has shape \(3,\) but must have one number for 4 frames"),
        (_arrays(F=np.zeros((4, 3))), r"`F` has shape \(4, 3\) but must have \(4, 3, 3\)"),
        (_arrays(e_unit="furlong"), "`e_unit` is 'furlong' but must be one of kcal/mol"),
        (_arrays(lattice=np.zeros(3)), r"`lattice` has shape \(3,\)"),
        (_arrays(z=np.array([8, 1, 200])), "atom 2 has atomic number 200 but must have 1 to 118"),
        (_arrays(R=np.full((4, 3, 3), np.nan)), "frame 0 of .*: `positions` of atom 0 is NaN"),
    ],
)
def test_foreign_and_faulty(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "a.npz")


def test_truncated_and_bare(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_arrays())
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"not a complete \.npz file"):
        read_frames(tmp_path / "cut.npz")
    with (tmp_path / "bare.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(InputError, match="holds one bare array"):
        read_frames(tmp_path / "bare.npz")
    with pytest.raises(InputError, match="the names of labels are fixed in the format npz"):
        read_frames(tmp_path / "a.npz", keys=LabelKeys(energy="E"))
