"""What the tests of LAMMPS work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlip.checkpoint import load_potential
from mlip.potential import Potential

SYMBOLS = ("Si", "O")
"""Elements of types 1 and 2 in all tests."""


@dataclass(frozen=True)
class Model:
    """A model file and the package made of it."""

    file: Path
    package: Path

    @property
    def potential(self) -> Potential:
        return load_potential(self.file)


@dataclass(frozen=True)
class Programs:
    """Programs of LAMMPS."""

    lmp: str
    mpiexec: str

    def run(
        self, folder: Path, commands: str, *arguments: str, ranks: int = 1, name: str = "in.test"
    ) -> tuple[int, str]:
        """Run an input in a folder; status and all that was printed. A hang is an error."""
        from mlip.lammps_plugin.parity import run_lammps

        script = folder / name
        script.write_text(commands, encoding="utf-8")
        done = run_lammps(
            script, ranks=ranks, lmp=[self.lmp, *arguments], mpiexec=self.mpiexec, timeout=300.0
        )
        return done.returncode, done.stdout + done.stderr
