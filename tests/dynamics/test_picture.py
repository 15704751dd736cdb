"""The picture of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mlip.dynamics.picture import draw
from mlip.dynamics.records import COLUMNS


def table(rows: int, *, periodic: bool, **changes: float) -> dict[str, np.ndarray]:
    columns = {name: np.linspace(1.0, 2.0, rows) for name in COLUMNS}
    if not periodic:
        columns["pressure_GPa"] = columns["volume_A3"] = np.full(rows, np.nan)
    return {**columns, **{name: np.full(rows, value) for name, value in changes.items()}}


@pytest.mark.parametrize(
    ("content", "height"),
    [
        (table(1, periodic=False), 660),
        (table(5, periodic=False, conserved_eV=np.nan), 660),
        (table(5, periodic=True, volume_A3=8.0), 990),
        (table(5, periodic=True), 1320),
    ],
)
def test_one_panel_for_all_that_is_known(content: dict[str, np.ndarray], height: int, tmp_path: Path) -> None:
    """330 dots for each of energy, temperature, pressure, volume; nothing is left beside the picture."""
    assert draw(content, tmp_path / "a.png", title="Cu4, nvt")
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header[:4] == b"\x89PNG"
    assert int.from_bytes(header[20:24], "big") == height
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw(table(2, periodic=True), tmp_path / "a.png", title="")
    assert list(tmp_path.iterdir()) == []
