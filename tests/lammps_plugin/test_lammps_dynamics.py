"""Trajectories: atoms that change processes, cells that change shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lammps_structures import crystal, sheared
from lammps_subject import SYMBOLS, Model, Programs

from mlip.lammps_plugin.structure import write_data

_SCRIPT = """
units metal
atom_style atomic
newton {newton}
read_data start.data
pair_style mlip
pair_coeff * * {package} Si O
neighbor 0.3 bin
neigh_modify every 1 delay 0 check yes
velocity all create 4000 87 loop geom
timestep 0.0005
{fix}
thermo_style custom step pe etotal vol
thermo 1
thermo_modify format float %.12f
run {steps}
write_dump all custom end id x y z fx fy fz modify sort id format float %.17g
"""


def _drift(text: str) -> float:
    """Range of the total energy, eV."""
    rows = [line.split() for line in text.splitlines()]
    numbers = [[float(w) for w in row] for row in rows if len(row) == 4 and row[0].isdigit()]
    return max(row[2] for row in numbers) - min(row[2] for row in numbers)


@pytest.mark.parametrize(
    ("name", "fix", "newton", "steps"),
    [
        ("migration", "fix 1 all nve", "on", 60),
        ("sheared-npt", "fix 1 all npt temp 4000 4000 0.05 tri 0 0 0.05", "off", 30),
    ],
)
def test_processes_agree(
    name: str, fix: str, newton: str, steps: int, model: Model, programs: Programs, tmp_path: Path
) -> None:
    """To rounding, after atoms have moved among processes and neighbour lists were built anew."""
    atoms = crystal((3, 2, 2)) if name == "migration" else sheared()
    ends = {}
    for ranks in (1, 2, 4):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        write_data(atoms, folder / "start.data", SYMBOLS)
        script = _SCRIPT.format(package=model.package, fix=fix, newton=newton, steps=steps)
        status, said = programs.run(folder, script, ranks=ranks)
        assert status == 0, said
        builds = next(line for line in said.splitlines() if line.startswith("Neighbor list builds"))
        assert int(builds.split()[-1]) >= 2
        ends[ranks] = np.loadtxt(folder / "end", skiprows=9)
        if name == "migration":
            assert _drift(said) < 0.02 * len(atoms)  # energy is conserved
    for ranks in (2, 4):
        np.testing.assert_allclose(ends[ranks], ends[1], rtol=0, atol=1e-8)


def test_energy_is_conserved(model: Model, programs: Programs, tmp_path: Path) -> None:
    """To 1e-5 eV per atom with a short step."""
    atoms = crystal((2, 1, 1))
    write_data(atoms, tmp_path / "start.data", SYMBOLS)
    script = _SCRIPT.format(package=model.package, fix="fix 1 all nve", newton="on", steps=400)
    status, said = programs.run(
        tmp_path, script.replace("0.0005", "0.0001").replace("create 4000", "create 300")
    )
    assert status == 0, said
    assert _drift(said) / len(atoms) < 1e-5
