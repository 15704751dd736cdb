from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.datasets import read_frames
from mlip.datasets.published import json_stream
from mlip.errors import InputError


def _frame(scale: float = 1.0) -> dict[str, Any]:
    """A frame with the stress that VASP would print: kbar, pressure positive."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    return {
        "structure": {
            "@class": "Structure",
            "lattice": {"matrix": atoms.cell.array.tolist()},
            "sites": [
                {"species": [{"element": "Cu", "occu": 1}], "abc": s.tolist(), "xyz": p.tolist()}
                for s, p in zip(atoms.get_scaled_positions(), atoms.positions, strict=True)
            ],
        },
        "uncorrected_total_energy": energy,
        "corrected_total_energy": energy - 0.5,
        "energy_per_atom": (energy - 0.5) / 4,
        "force": atoms.get_forces().tolist(),
        "stress": (atoms.get_stress(voigt=False) * -1602.1766208).tolist(),
        "magmom": None,
        "bandgap": 0.0,
        "mp_id": "mp-30",
    }


@pytest.fixture
def content() -> dict[str, Any]:
    return {
        "mp-30": {f"mp-9-0-{step}": _frame(1.0 + 0.001 * step) for step in (10, 2, 0)},
        "mvc-12": {"mvc-12-1-0": {**_frame(), "stress": None, "force": None}},
    }


@pytest.mark.parametrize("packed", [False, True])
def test_frames(tmp_path: Path, content: dict[str, Any], packed: bool) -> None:
    path = tmp_path / ("MPtrj.json.gz" if packed else "MPtrj.json")
    path.write_bytes(gzip.compress(json.dumps(content).encode()) if packed else json.dumps(content).encode())
    frames = read_frames(path)
    assert frames.report.format == "mptrj"
    assert [f.step for f in frames] == [0, 2, 10, 0]
    assert [f.trajectory for f in frames] == ["mp-9-0"] * 3 + ["mvc-12-1"]
    assert [f.group for f in frames] == ["mp-30"] * 3 + ["mvc-12"]
    assert frames[1].energy == content["mp-30"]["mp-9-0-2"]["uncorrected_total_energy"]
    assert frames[1].info["mp2020_correction"] == pytest.approx(-0.5)
    assert frames[3].stress is frames[3].forces is None
    assert frames.report.labelled["stress"] == 3


def test_stress_is_the_derivative_of_the_energy(tmp_path: Path) -> None:
    strained = {f"a-0-{i}": _frame(1.0 + 1e-4 * (i - 1)) for i in range(3)}
    (tmp_path / "a.json").write_text(json.dumps({"mp-30": strained}))
    low, middle, high = read_frames(tmp_path / "a.json")
    assert low.energy is not None
    assert high.energy is not None
    assert middle.stress is not None
    slope = (high.energy - low.energy) / (2e-4 * middle.volume)
    assert np.trace(middle.stress) == pytest.approx(slope, rel=1e-3)


def _partial(content: dict[str, Any]) -> None:
    content["mvc-12"]["mvc-12-1-0"]["structure"]["sites"][0]["species"][0]["occu"] = 0.5


def _no_structure(content: dict[str, Any]) -> None:
    del content["mvc-12"]["mvc-12-1-0"]["structure"]


def _misfit(content: dict[str, Any]) -> None:
    content["mvc-12"]["mvc-12-1-0"]["force"] = [[0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_partial, "`mvc-12-1-0` in `mvc-12` of .*: has partly occupied sites"),
        (_no_structure, "`mvc-12-1-0` in `mvc-12` of .*: has no `structure`, so this is not MPtrj"),
        (_misfit, r"`mvc-12-1-0` in `mvc-12` of .*: `forces` has shape \(1, 3\) but must have \(4, 3\)"),
    ],
)
def test_bad_frames(tmp_path: Path, content: dict[str, Any], change: Any, message: str) -> None:
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "a.json")


def test_cut_short(tmp_path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content)
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "a.json").write_text(text[: int(len(text) * share)])
        with pytest.raises(InputError, match=r"a\.json: not complete JSON"):
            read_frames(tmp_path / "a.json")


def test_damaged_gzip(
    tmp_path: Path, content: dict[str, Any], damaged_gzip: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.json").write_bytes(damaged_gzip(json.dumps(content).encode()))
    with pytest.raises(InputError, match=r"a\.json: not complete JSON"):
        read_frames(tmp_path / "a.json", format="mptrj")


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=9), VALUE, max_size=4),
    block=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
)
def test_any_object_in_any_blocks(value: dict[str, Any], block: int, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_BLOCK", block)
        assert dict(json_stream.iter_members(io.BytesIO(data), Path("x"))) == value


@pytest.mark.parametrize("text", ["", "[1]", '{"a"', '{"a": 1', '{"a": 1,', '{"a" 1}', "{1: 2}", '{"a": nul'])
def test_no_object(text: str) -> None:
    with pytest.raises(InputError, match="x: not complete JSON"):
        list(json_stream.iter_members(io.BytesIO(text.encode()), Path("x")))
