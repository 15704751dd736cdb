"""Structures in the frame of LAMMPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.errors import InputError
from mlip.lammps_plugin.structure import boundary, place, write_data
from mlip.neighbors import neighbor_list


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), pbc=st.tuples(*[st.booleans()] * 3))
def test_same_structure(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    """Whatever the cell, left-handed ones included: same distances, images too."""
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) + 4 * np.eye(3)
    cell *= rng.choice([-1.0, 1.0])
    atoms = Atoms("Si6", rng.uniform(-3, 6, (6, 3)), cell=cell, pbc=pbc)
    placed = place(atoms)
    assert np.allclose(placed.cell, np.tril(placed.cell))
    assert (np.diag(placed.cell) > 0).all()
    np.testing.assert_allclose(placed.rotation @ placed.rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(placed.positions, atoms.positions @ placed.rotation, atol=1e-12)
    for axis in np.flatnonzero(~np.array(pbc)):  # free directions: all atoms inside
        inside = (placed.positions @ np.linalg.inv(placed.cell))[:, axis]
        start = placed.origin[axis] / placed.cell[axis, axis]
        assert (inside > start).all()
        assert (inside < start + 1).all()

    def distances(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
        senders, receivers, shifts = neighbor_list(positions, cell, np.array(pbc), 4.0)
        return np.sort(np.linalg.norm(positions[senders] - positions[receivers] + shifts @ cell, axis=1))

    before = distances(atoms.positions, np.where(np.array(pbc)[:, None], cell, 0.0))
    np.testing.assert_allclose(distances(placed.positions, placed.cell), before, atol=1e-10)


def test_data_file(tmp_path: Path) -> None:
    atoms = Atoms("OSi", [[0, 0, 0], [0, 0, 2.0]], cell=[3, 4, 5], pbc=True)
    write_data(atoms, tmp_path / "x.data", ["Si", "O"])
    lines = (tmp_path / "x.data").read_text().splitlines()
    assert "0 3 xlo xhi" in lines
    assert not any("xy xz yz" in line for line in lines)
    assert lines[-2:] == ["1 2 0 0 0", "2 1 0 0 2"]
    assert boundary(Atoms("H", pbc=[True, False, True])) == "p f p"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds H, but there are types for Si only"):
        write_data(Atoms("H", cell=[1, 1, 1], pbc=True), tmp_path / "x.data", ["Si"])
    with pytest.raises(InputError, match="span no volume"):
        place(Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True))
