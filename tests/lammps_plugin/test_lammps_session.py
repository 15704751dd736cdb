"""LAMMPS and Python in one process: whichever comes first, neither disturbs the other. And nothing is left
behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lammps_subject import Model, Programs

_INPUT = """
units metal
atom_modify map array
lattice diamond 5.43
region box block 0 1 0 1 0 1
create_box 2 box
create_atoms 1 box
mass * 28.0
pair_style mlip
pair_coeff * * {package} Si O
run 0
"""


def _python(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "verrid" not in done.stderr  # torch's warning of operators registered twice
    return done.stdout


_ENERGY = """
lammps = start()
lammps.commands_string('''{commands}''')
energies.append(lammps.get_thermo("pe"))
lammps.close()
"""

_CALCULATOR = """
from ase.build import bulk
from mlip.calculators import MLIPCalculator
atoms = bulk("Si", a=5.43, cubic=True)
atoms.calc = MLIPCalculator({file!r})
energies.append(atoms.get_potential_energy())
"""

_TRACE = """
from mlip.lammps_plugin.operators import define
define()
"""


@pytest.mark.parametrize("order", ["lammps calculator trace lammps", "trace calculator lammps calculator"])
def test_orders(order: str, model: Model, plugin: Path, tmp_path: Path) -> None:
    """LAMMPS, a calculator, and the operators that tracing defines: any of them first.

    The threads of torch stay as they were, and the user need not have loaded MPI.
    """
    parts = {
        "lammps": _ENERGY.format(commands=_INPUT.format(package=model.package)),
        "calculator": _CALCULATOR.format(file=str(model.file)),
        "trace": _TRACE,
    }
    code = "import torch\ntorch.set_num_threads(2)\nfrom mlip.lammps_plugin import start\nenergies = []\n"
    code += "\n".join(parts[name] for name in order.split())
    code += "\nassert torch.get_num_threads() == 2\nassert max(energies) - min(energies) < 1e-9, energies\n"
    _python(code, tmp_path)


def test_errors_are_exceptions(model: Model, plugin: Path, tmp_path: Path) -> None:
    """And LAMMPS goes on afterwards."""
    code = f"""
from mlip.lammps_plugin import start
lammps = start()
commands = '''{_INPUT.format(package=model.package)}'''
try:
    lammps.commands_string(commands.replace("Si O", "Si Xe"))
except Exception as error:
    print(error)
lammps.command("clear")
lammps.commands_string(commands)
lammps.close()
"""
    assert "element Xe of pair_coeff is unknown" in _python(code, tmp_path)


def test_not_built(model: Model, tmp_path: Path) -> None:
    code = "from mlip.lammps_plugin import start\ntry: start()\nexcept Exception as error: print(error)"
    assert "mlip lammps build" in _python(code, tmp_path, XDG_CACHE_HOME=str(tmp_path))


@pytest.mark.parametrize("end", ["", "quit", "shell kill -9 $PPID"])
def test_nothing_is_left_behind(
    end: str, model: Model, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages are unpacked somewhere; that place is gone, however the run ends."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    programs.run(tmp_path, _INPUT.format(package=model.package) + end)
    assert list(temporary.iterdir()) == []


def test_leftovers_of_the_killed_are_cleared(
    model: Model, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processes that are no more; those of others that run stay."""
    import socket

    temporary = tmp_path / "tmp"
    prefix = f"mlip-lammps-{socket.gethostname()}"
    gone, alive = (temporary / f"{prefix}-{process}-abcdef" for process in (2**22 + 1, os.getpid()))
    for folder in (gone, alive):
        (folder / "inside").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    status, said = programs.run(tmp_path, _INPUT.format(package=model.package))
    assert status == 0, said
    assert list(temporary.iterdir()) == [alive]


def test_two_models_and_reload(model: Model, programs: Programs, tmp_path: Path) -> None:
    """Two instances in one run, and again after `clear`: energies add up."""
    single = _INPUT.format(package=model.package) + 'print "energy $(pe:%.12g)"\n'
    double = single.replace("pair_style mlip", "pair_style hybrid/overlay mlip mlip").replace(
        f"pair_coeff * * {model.package} Si O",
        "\n".join(f"pair_coeff * * mlip {k} {model.package} Si O" for k in (1, 2)),
    )
    status, said = programs.run(tmp_path, f"{single}clear\n{double}clear\n{single}")
    assert status == 0, said
    one, two, again = (float(line.split()[1]) for line in said.splitlines() if line.startswith("energy"))
    assert two == pytest.approx(2 * one, rel=1e-12)
    assert again == one
