"""Transition1x, ANI-1x, SPICE and QM7-X."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mlip.datasets import read_frames
from mlip.datasets.published.foreign_h5 import BLOCK
from mlip.datasets.published.spice import charge_of_smiles
from mlip.errors import InputError

HARTREE, BOHR = 27.2113860, 0.5291772105
rng = np.random.default_rng(0)


def _transition1x(path: Path, **change: Any) -> None:
    with h5py.File(path, "w") as file:
        for formula, count in (("C2H2", 2), ("CH4", 1)):
            for k in range(count):
                group = file.create_group(f"data/{formula}/rxn{k:04}")
                n = sum(int(c) for c in formula if c.isdigit()) + (formula == "CH4")
                fields = {
                    "atomic_numbers": np.array([6] * (n // 3 + 1) + [1] * (n - n // 3 - 1)),
                    "positions": rng.normal(size=(12, n, 3)),
                    "wB97x_6-31G(d).energy": -1000.0 - np.arange(12) - 100 * k,
                    "wB97x_6-31G(d).forces": rng.normal(size=(12, n, 3)),
                    **change,
                }
                for name, value in fields.items():
                    if value is not None:
                        group[name] = value
                group.create_group("reactant")["positions"] = np.zeros((1, n, 3))
        file["train/C2H2"] = h5py.SoftLink("/data/C2H2")
        file["test/CH4"] = h5py.SoftLink("/data/CH4")


def _ani1x(path: Path, **change: Any) -> None:
    count = BLOCK + 20
    energy = -40.0 - np.arange(count, dtype=float)
    energy[3:5] = np.nan
    forces = rng.normal(size=(count, 5, 3)).astype(np.float32)
    forces[4:6] = np.nan
    better = np.full(count, np.nan)
    better[7] = -40.5
    fields = {
        "atomic_numbers": np.array([6, 1, 1, 1, 1], dtype=np.uint8),
        "coordinates": rng.normal(size=(count, 5, 3)).astype(np.float32),
        "wb97x_dz.energy": energy,
        "wb97x_dz.forces": forces,
        "ccsd(t)_cbs.energy": better,
        **change,
    }
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[f"C1H4/{name}"] = value


def _spice(path: Path, **change: Any) -> None:
    positions = rng.normal(size=(3, 4, 3)).astype(np.float32)
    fields = {
        "subset": np.array(["Ion pairs"], dtype=object),
        "smiles": np.array(["[NH2-:1]([H:2])[H:3].[Ca+2:4]"], dtype=object),
        "atomic_numbers": np.array([7, 1, 1, 20], dtype=np.int16),
        "conformations": positions,
        "dft_total_energy": -700.0 - np.arange(3.0),
        "dft_total_gradient": rng.normal(size=(3, 4, 3)).astype(np.float32),
        **change,
    }
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[f"nh2 ca/{name}"] = value
        file.create_group("zzz empty")


def _qm7x(path: Path, **change: Any) -> None:
    with h5py.File(path, "w") as file:
        for molecule in (1, 2):
            for name in ("opt", "1"):
                group = file.create_group(f"{molecule}/Geom-m{molecule}-i1-c1-{name}")
                fields = {
                    "atNUM": np.array([6, 1, 1, 1, 1]),
                    "atXYZ": rng.normal(size=(5, 3)),
                    "ePBE0+MBD": np.array([-1100.0 - molecule]),
                    "totFOR": rng.normal(size=(5, 3)),
                    "pbe0FOR": np.zeros((5, 3)),
                    **change,
                }
                for key, value in fields.items():
                    if value is not None:
                        group[key] = value


WRITERS: dict[str, Callable[..., None]] = {
    "transition1x": _transition1x,
    "ani1x": _ani1x,
    "spice": _spice,
    "qm7x": _qm7x,
}


def test_transition1x(tmp_path: Path) -> None:
    _transition1x(tmp_path / "a.h5")
    frames = read_frames(tmp_path / "a.h5")
    assert frames.report.format == "transition1x"
    assert len(frames) == 36  # links and the groups of end points are not read again
    assert [f.reaction for f in frames[::12]] == ["C2H2/rxn0000", "C2H2/rxn0001", "CH4/rxn0000"]
    assert [f.group for f in frames[::12]] == ["C2H2", "C2H2", "CH4"]
    assert [f.step for f in frames[:12]] == list(range(12))
    assert [f.info["split"] for f in frames[::12]] == ["train", "train", "test"]
    assert frames[14].energy == -1102.0
    with h5py.File(tmp_path / "a.h5") as file:
        stored = file["data/C2H2/rxn0001/wB97x_6-31G(d).forces"][2]
        np.testing.assert_array_equal(frames[14].forces, stored)


def test_ani1x(tmp_path: Path) -> None:
    _ani1x(tmp_path / "a.h5")
    frames = read_frames(tmp_path / "a.h5")
    assert frames.report.format == "ani1x"
    assert len(frames) == BLOCK + 19
    assert frames.report.skipped == {"neither energy nor forces of wb97x_dz": 1}
    assert (frames[3].energy, frames[4].forces) == (None, None)  # of the rows 3 and 5
    assert frames[4].energy == pytest.approx(-45 * HARTREE, rel=1e-8)
    assert frames[6].info["ccsd(t)_cbs.energy"] == pytest.approx(-40.5 * HARTREE, rel=1e-8)
    assert frames[0].group == "C1H4"
    with h5py.File(tmp_path / "a.h5") as file:
        stored = file["C1H4/wb97x_dz.forces"][-1]
        np.testing.assert_allclose(frames[-1].forces, stored * HARTREE, rtol=1e-7)


@pytest.mark.parametrize("flat", [False, True])
def test_spice(tmp_path: Path, flat: bool) -> None:
    gradient = rng.normal(size=(3, 4, 3))
    _spice(tmp_path / "a.hdf5", dft_total_gradient=gradient.reshape(3, 12) if flat else gradient)
    frames = read_frames(tmp_path / "a.hdf5")
    assert frames.report.format == "spice"
    assert len(frames) == 3
    assert frames.report.skipped == {"empty group": 1}
    assert frames[2].energy == pytest.approx(-702 * HARTREE, rel=1e-8)
    np.testing.assert_allclose(frames[2].forces, -gradient[2] * HARTREE / BOHR, rtol=1e-7)
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_allclose(frames[1].positions, file["nh2 ca/conformations"][1] * BOHR, rtol=1e-6)
    assert (frames[0].charge, frames[0].spin, frames[0].molecule) == (1, 1, "nh2 ca")
    assert frames[0].info["subset"] == "Ion pairs"
    assert frames.report.sources["charge"] == {"formal charges of smiles": 3}


def test_units_of_spice(tmp_path: Path) -> None:
    _spice(tmp_path / "a.hdf5", dft_total_gradient=None)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["nh2 ca/conformations"].attrs["units"] = "angstrom"
        stored = file["nh2 ca/conformations"][0]
    frame = read_frames(tmp_path / "a.hdf5")[0]
    np.testing.assert_array_equal(frame.positions, stored)
    assert frame.forces is None
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["nh2 ca/dft_total_energy"].attrs["units"] = "furlong"
    with pytest.raises(InputError, match="nh2 ca: `dft_total_energy` is in 'furlong', but must be in one of"):
        read_frames(tmp_path / "a.hdf5")


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[C:1]([H:2])([H:3])([H:4])[H:5]", 0),
        ("[N+:1]([H:2])([H:3])([H:4])[H:5]", 1),
        ("[O-:1][C:2](=[O:3])[H:4].[Na+:5]", 0),
        ("[Ca+2].[Cl-]", 1),
        ("[Ca++:1]", 2),
        ("[Fe-3:12]", -3),
        ("[C@@H:1]([O--:3])C-C", -2),
        ("C/C=C/C", 0),
    ],
)
def test_charge_of_smiles(smiles: str, charge: int) -> None:
    assert charge_of_smiles(smiles) == charge


def test_qm7x(tmp_path: Path) -> None:
    _qm7x(tmp_path / "1000.hdf5")
    frames = read_frames(tmp_path / "1000.hdf5")
    assert frames.report.format == "qm7x"
    assert [f.molecule for f in frames] == ["m1", "m1", "m2", "m2"]
    assert [f.energy for f in frames] == [-1101.0, -1101.0, -1102.0, -1102.0]
    assert frames[0].forces is not None
    assert frames[0].forces.any()  # with dispersion: not `pbe0FOR`


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated(tmp_path: Path, name: str, share: float) -> None:
    WRITERS[name](tmp_path / "a.h5")
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.h5: not a complete HDF5 file"):
        read_frames(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "transition1x",
            {"wB97x_6-31G(d).forces": None},
            r"C2H2/rxn0000: has no dataset `wB97x_6-31G\(d\).forces`",
        ),
        ("transition1x", {"wB97x_6-31G(d).energy": np.zeros(3)}, "C2H2/rxn0000: .* must be numbers"),
        (
            "ani1x",
            {"wb97x_dz.energy": None},
            r"C1H4: has no dataset `wb97x_dz.energy`; it holds `atomic_numbers`",
        ),
        ("ani1x", {"coordinates": np.zeros((4, 2, 3))}, r"C1H4: `coordinates` is float64 \(4, 2, 3\)"),
        ("spice", {"atomic_numbers": None}, "nh2 ca: has no dataset `atomic_numbers`"),
        (
            "spice",
            {"dft_total_gradient": np.zeros((2, 3))},
            r"nh2 ca: `dft_total_gradient` has shape \(2, 3\)",
        ),
        ("qm7x", {"atNUM": None}, "1/Geom-m1-i1-c1-1: has no dataset `atNUM`"),
        ("qm7x", {"totFOR": np.zeros((2, 3))}, "1/Geom-m1-i1-c1-1: `totFOR` is float64"),
    ],
)
def test_wrong_layout(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    WRITERS[name](tmp_path / "a.h5", **change)
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_nothing_outside_the_file_is_read(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((3, 5, 3))
    _ani1x(tmp_path / "a.h5", coordinates=None)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        group = file["C1H4"]
        if kind == "link":
            group["coordinates"] = h5py.ExternalLink(str(other), "/x")
        elif kind == "external":
            group.create_dataset("coordinates", (3, 5, 3), dtype="f4", external=str(tmp_path / "raw"))
        else:
            layout = h5py.VirtualLayout(shape=(3, 5, 3), dtype="f8")
            layout[:] = h5py.VirtualSource(str(other), "x", shape=(3, 5, 3))
            group.create_virtual_dataset("coordinates", layout)
    with pytest.raises(
        InputError, match=r"C1H4: (has no dataset `coordinates`|`coordinates` must be a dataset)"
    ):
        read_frames(tmp_path / "a.h5", format="ani1x")
