from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import Frame, LabelKeys, read_frames
from mlip.datasets.consistency import stress_slope
from mlip.datasets.mlearn import stress_of_vasp
from mlip.errors import InputError
from mlip.units import GPA


def test_stress_order_sign_and_unit() -> None:
    stress = stress_of_vasp([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * 1602.1766208  # eV/Å³ to kbar
    np.testing.assert_allclose(stress, [[-1, -4, -6], [-4, -2, -5], [-6, -5, -3]], rtol=1e-7)
    with pytest.raises(InputError, match=r"`virial_stress` has shape \(5,\) but must be six numbers"):
        stress_of_vasp([1.0] * 5)


@pytest.mark.parametrize("element", ["Si", "Mo", "Li"])
def test_published_files(shared_data: Path, element: str) -> None:
    train = read_frames(shared_data / "mlearn" / element / "training.json.gz")
    test = read_frames(shared_data / "mlearn" / element / "test.json")
    assert (len(train), len(test)) == {"Si": (214, 25), "Mo": (194, 23), "Li": (241, 29)}[element]
    raw = json.loads((shared_data / "mlearn" / element / "test.json").read_text())
    for frame, entry in zip(test, raw, strict=True):
        assert len(frame) == entry["num_atoms"]
        assert frame.energy == entry["outputs"]["energy"]
        np.testing.assert_array_equal(frame.forces, entry["outputs"]["forces"])
        xyz = [site["xyz"] for site in entry["structure"]["sites"]]
        np.testing.assert_allclose(frame.positions, xyz, atol=1e-6)
        assert frame.volume == pytest.approx(entry["structure"]["lattice"]["volume"])
    assert "Snapshot" not in "".join(f.group for f in train)
    assert 20 < len({f.group for f in train}) < 40


def test_pymatgen_agrees(shared_data: Path) -> None:
    structure = pytest.importorskip("pymatgen.core").Structure
    path = shared_data / "mlearn" / "Si" / "test.json"
    for frame, entry in zip(read_frames(path), json.loads(path.read_text()), strict=True):
        theirs = structure.from_dict(entry["structure"])
        np.testing.assert_allclose(frame.positions, theirs.cart_coords, atol=1e-10)
        assert frame.atomic_numbers.tolist() == list(theirs.atomic_numbers)


def _constants(frames: list[Frame]) -> tuple[float, float, float]:
    """C11, C12, C44 in GPa from cells strained by at most 2 % against the ground state (clamped ions)."""
    ground = next(f for f in frames if f.group == "Ground state crystal")
    rows, values = [], []
    for frame in frames:
        if frame.info["config_type"] != "Elastic" or frame.stress is None:
            continue
        repeats = round((frame.volume / ground.volume) ** (1 / 3))
        gradient = np.linalg.solve(ground.cell * repeats, frame.cell)
        strain = 0.5 * (gradient + gradient.T) - np.eye(3)
        if np.abs(strain).max() > 0.025:
            continue
        for i in range(3):
            others = np.trace(strain) - strain[i, i]
            rows.append([strain[i, i], others, 0.0])
            values.append(frame.stress[i, i])
        for i, j in ((0, 1), (1, 2), (0, 2)):
            rows.append([0.0, 0.0, 2 * strain[i, j]])
            values.append(frame.stress[i, j])
    solution, *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    return tuple((solution / GPA).tolist())  # type: ignore[return-value]


def test_elastic_constants(shared_data: Path) -> None:
    frames = read_frames(shared_data / "mlearn" / "Si" / "training.json.gz")
    c11, c12, c44 = _constants(frames)
    assert c11 == pytest.approx(153, rel=0.03)
    assert c12 == pytest.approx(56.6, rel=0.06)
    assert c44 == pytest.approx(99, rel=0.03)  # also a check of the order XY YZ ZX


def test_stress_is_the_derivative_of_the_energy(shared_data: Path) -> None:
    frames = read_frames(shared_data / "mlearn" / "Si" / "training.json.gz")
    slope = stress_slope(frames)
    assert slope is not None
    assert slope.pairs > 40
    assert slope.slope == pytest.approx(1.0, abs=0.02)
    assert slope.correlation > 0.999


ENTRY = {
    "structure": {
        "lattice": {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]},
        "sites": [{"species": [{"element": "Si", "occu": 1}], "abc": [0.5, 0, 0]}],
    },
    "outputs": {"energy": -5.0, "forces": [[0, 0, 0]], "virial_stress": [1, 2, 3, 4, 5, 6]},
    "description": "Snapshot 3 of 9 of a run",
    "group": "AIMD",
}


def _edited(*path: str | int, value: object) -> list:
    entry = copy.deepcopy(ENTRY)
    target: object = entry
    for step in path[:-1]:
        target = target[step]  # type: ignore[index]
    target[path[-1]] = value  # type: ignore[index]
    return [entry]


def test_minimal_entry(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps([ENTRY]).encode()))
    frame = read_frames(tmp_path / "a.json.gz")[0]
    np.testing.assert_array_equal(frame.positions, [[1.5, 0, 0]])
    assert frame.pbc.all()
    assert (frame.group, frame.info["config_type"]) == ("a run", "AIMD")
    with pytest.raises(InputError, match="the names of labels are fixed in the format mlearn"):
        read_frames(tmp_path / "a.json.gz", keys=LabelKeys(energy="e"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"x": 1}], "entry 0 of .* has no `structure`"),
        ([1], "has no `structure`"),
        (_edited("structure", "sites", 0, "species", 0, "element", value="Xx"), "'Xx' is not the symbol"),
        (_edited("structure", "sites", 0, "species", 0, "occu", value=0.5), "partly occupied sites"),
        (_edited("structure", "lattice", value={}), "`structure` is not a pymatgen structure"),
        (_edited("outputs", "forces", value=[[0, 0]]), r"`forces` has shape \(1, 2\) but must have \(1, 3\)"),
        (_edited("outputs", "forces", value=[["a", 0, 0]]), "entry 0 of .* could not convert"),
        (_edited("outputs", "virial_stress", value=[1, 2]), "`virial_stress` has shape"),
    ],
)
def test_bad_entries(tmp_path: Path, content: list, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "a.json")


def test_truncated(tmp_path: Path, damaged_gzip: Callable[[bytes], bytes]) -> None:
    text = json.dumps([ENTRY] * 20).encode()
    (tmp_path / "a.json").write_bytes(text[:300])
    with pytest.raises(InputError, match="not complete JSON"):
        read_frames(tmp_path / "a.json")
    (tmp_path / "a.json.gz").write_bytes(damaged_gzip(text))
    with pytest.raises(InputError, match="not complete JSON"):
        read_frames(tmp_path / "a.json.gz")
    packed = gzip.compress(text)
    (tmp_path / "a.json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="not complete JSON"):
        read_frames(tmp_path / "a.json.gz")
