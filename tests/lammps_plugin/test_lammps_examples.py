"""The inputs of examples/lammps, made short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from lammps_subject import Model, Programs

from mlip.calculators import MLIPCalculator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "lammps"


@pytest.mark.parametrize(
    ("name", "ranks", "arguments"),
    [
        ("in.nve", 2, ("-var", "steps", "3", "-var", "cells", "1")),
        ("in.npt", 1, ("-var", "steps", "3", "-var", "cells", "1")),
        ("in.minimize", 1, ("-var", "steps", "3", "-var", "cells", "1")),
        ("in.neb", 3, ("-var", "steps", "20", "-var", "cells", "1", "-partition", "3x1")),
        ("in.melt", 1, ("-var", "steps", "100", "-var", "cells", "1")),
    ],
)
def test_inputs(
    name: str, ranks: int, arguments: tuple[str, ...], model: Model, programs: Programs, tmp_path: Path
) -> None:
    script = (EXAMPLES / name).read_text()
    given = ("-var", "model", str(model.package), *arguments)
    status, said = programs.run(tmp_path, script, *given, ranks=ranks)
    assert status == 0, said
    if name == "in.minimize":
        assert "vacancy formation energy, eV: " in said
    if name == "in.neb":
        assert (tmp_path / "hop.final").read_text().split()[0] == "1"


def test_dynamical_matrix(model: Model, programs: Programs, tmp_path: Path) -> None:
    """Its elements are minus the slopes of the forces over the masses."""
    script = (EXAMPLES / "in.dynamical_matrix").read_text()
    status, said = programs.run(tmp_path, script, "-var", "model", str(model.package))
    assert status == 0, said
    matrix = np.loadtxt(tmp_path / "dynmat.dat").reshape(24, 24)
    atoms = bulk("Si", a=5.469, cubic=True)
    atoms.calc = MLIPCalculator(model.potential)
    atoms.positions[0, 0] += 0.005
    ahead = atoms.get_forces()
    atoms.positions[0, 0] -= 0.01
    slope = -(ahead - atoms.get_forces()) / 0.01 / 28.085
    # The order of atoms in LAMMPS is another, that of the first one the same.
    row = matrix[0].reshape(8, 3)
    np.testing.assert_allclose(row[0], slope[0], atol=1e-8)
    np.testing.assert_allclose(np.sort(row.ravel()), np.sort(slope.ravel()), atol=1e-8)


def test_from_python(model: Model, plugin: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "from_python.py"), "--steps", "5"]
    command += ["--model", str(model.file), "--package", str(model.package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-10
