"""`mlip vibrations`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mlip.cli import EXIT_NOT_CONVERGED
from mlip.cli.calculator_choice import DEFAULT_MODEL, choose_calculator
from mlip.cli.structure_files import (
    check_writable,
    output_format,
    read_structures,
    relaxed_name,
    write_structures,
)
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from mlip.calculators.surface import Surface
    from mlip.hessian import HessianMethod
    from mlip.search.relax import RelaxResult, RelaxStep


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, checked as far as that goes without computing.

    Attributes:
        source: The file.
        atoms: What it holds.
        relax: Relax before.
        fmax: Largest force of a structure at rest, eV/Å.
        steps: Of the relaxation.
        temperature: K.
        hessian: How a model makes its Hessian, of molecules; None for the exact one.
        prefix: Of the names of all files written.
    """

    source: Path
    atoms: Atoms
    relax: bool
    fmax: float
    steps: int
    temperature: float
    hessian: HessianMethod | None
    prefix: Path

    def file(self, ending: str) -> Path:
        """A file to be written: `-modes.xyz` becomes STRUCT-modes.xyz."""
        return self.prefix.with_name(self.prefix.name + ending)

    @property
    def relaxed_file(self) -> Path:
        """Where the relaxed structure goes. The name of a POSCAR alone says its format, not its ending."""
        usual = relaxed_name(self.source, frames=1)
        if self.prefix == _usual_prefix(self.source):
            return usual
        return self.file("-relaxed" + (usual.suffix if usual.suffix in (".xyz", ".cif") else ".vasp"))


def vibrations(
    structure: Annotated[Path, typer.Argument(metavar="STRUCT", help="One structure, any format of ASE.")],
    relax: Annotated[bool, typer.Option("--relax", help="Relax first; crystals with their cell.")] = False,
    fmax: Annotated[
        float, typer.Option(help="At rest when no force is larger than this, eV/Å; `relax` stops at 0.05.")
    ] = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of --relax.")] = 500,
    temperature: Annotated[float, typer.Option(metavar="K", help="Of the thermochemistry, K.")] = 298.15,
    pressure: Annotated[
        float | None, typer.Option(metavar="BAR", help="Molecules: of the gas, bar.  [default: 1]")
    ] = None,
    symmetry: Annotated[
        int | None, typer.Option(metavar="N", help="Molecules: symmetry number.  [default: found]")
    ] = None,
    multiplicity: Annotated[
        int | None, typer.Option(metavar="N", help="Molecules: 2S + 1.  [default: the file's, else lowest]")
    ] = None,
    hessian: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="autograd, finite-difference, direct (head).  [default: autograd]"
        ),
    ] = None,
    supercell: Annotated[
        str | None,
        typer.Option(metavar='"2 2 2"', help="Crystals: repetitions of the cell.  [default: auto]"),
    ] = None,
    dos_mesh: Annotated[
        str | None,
        typer.Option(metavar='"20 20 20"', help="Crystals: wave vectors of the densities.  [default: auto]"),
    ] = None,
    elastic: Annotated[bool, typer.Option("--elastic", help="Crystals: elastic constants too.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="PREFIX", help="Start of the files' names; default STRUCT's.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = DEFAULT_MODEL,
    calculator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of a model: tblite (GFN2-xTB).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
) -> None:
    """Vibrations and thermochemistry of molecules, phonons and elastic constants of crystals.

    Molecules: frequencies with translations and rotations projected out, zero-point energy, enthalpy, entropy
    and Gibbs energy of the ideal gas (harmonic, and quasi-RRHO), the modes as an animation
    (STRUCT-modes.xyz) and a picture (STRUCT-spectrum.png). Structures with fixed atoms, or periodic in one or
    two directions, the same as bound oscillators.

    Crystals (periodic in three directions, no atom fixed): dispersion, density of states and heat capacity
    (STRUCT-phonons.png) from the forces in displaced supercells, and force constants (STRUCT-phonopy.yaml).

    Imaginary frequencies are written 123.4i, and negative in JSON. With --relax a saddle point is left for a
    minimum, and STRUCT-relaxed is written.

    Exits 0, 3 when --relax did not reach a minimum (what was reached is written), 2 when something given
    cannot be used, as when a structure is not at rest.
    """
    request = Request(
        source=structure, atoms=_read(structure, multiplicity, of_model=calculator is None), relax=relax,
        fmax=fmax, steps=steps, temperature=temperature, hessian=_hessian_method(hessian),
        prefix=_prefix(structure, out),
    )  # fmt: skip
    if calculator is not None and hessian is not None:
        raise InputError("--hessian is for models: that of a --calculator is by finite differences of forces")
    gas = {"pressure": pressure, "symmetry": symmetry, "multiplicity": multiplicity}
    crystal = {"supercell": supercell, "dos-mesh": dos_mesh, "elastic": elastic or None}
    with naming(structure):
        job = _plan(request, gas, crystal)
        engine, chosen = choose_calculator(model, calculator, device=device, dtype=dtype)
        outcome = job(engine)
    _conclude(structure, outcome, chosen if as_json else None)


def _usual_prefix(source: Path) -> Path:
    return source.with_name(source.stem)


def _prefix(source: Path, out: Path | None) -> Path:
    if out is None:
        return _usual_prefix(source)
    if out.is_dir():
        raise InputError(
            f"--out {out} is a folder, but must be how the names of the files begin: "
            f"add that, for instance --out {out / source.stem}"
        )
    return out


def _read(path: Path, multiplicity: int | None, *, of_model: bool) -> Atoms:
    """The structure, which tells a calculator the multiplicity that was asked for; a model cannot be told.

    Raises:
        InputError: There are several, or no such electrons.
    """
    from mlip.calculators.electrons import multiplicity_of, with_spin
    from mlip.search.thermochemistry import check_thermochemistry

    frames = read_structures(path)
    if len(frames) > 1:
        raise InputError(f"{path}: holds {len(frames)} structures, but vibrations are of one: choose it")
    atoms = frames[0]
    with naming(path):
        if multiplicity is None or atoms.pbc.any() or multiplicity == multiplicity_of(atoms):
            return atoms
        check_thermochemistry(atoms, multiplicity=multiplicity)
    if not of_model:
        return with_spin(atoms, multiplicity)
    warnings.warn(
        f"the model takes no account of the multiplicity, {multiplicity}: energy and frequencies are those "
        "of what it was trained on, only the electronic entropy is that of the multiplicity",
        stacklevel=2,
    )
    return atoms


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command prints: text and JSON, and what of the wish was missed (empty if nothing)."""

    text: str
    report: dict[str, Any]
    missed: str = ""


def _plan(
    request: Request, gas: dict[str, Any], crystal: dict[str, Any]
) -> Callable[[BaseCalculator], Outcome]:
    """Settle what kind of structure this is, and refuse what does not go with it."""
    from mlip.rigid_motions import rigid_motions
    from mlip.search.relax import check_relaxation

    atoms = request.atoms
    is_crystal = bool(atoms.pbc.all()) and not atoms.constraints
    is_gas = not atoms.pbc.any() and not atoms.constraints
    for options, fits, kind in ((gas, is_gas, "free molecules"), (crystal, is_crystal, "crystals")):
        given = [name for name, value in options.items() if value is not None]
        if given and not fits:
            raise InputError(f"--{given[0]} is for {kind}, but the structure is {_kind(is_crystal, is_gas)}")
    if is_crystal and request.hessian is not None:
        raise InputError("--hessian is for molecules: phonons come from the forces of displaced supercells")
    check_relaxation(atoms, fmax=request.fmax, steps=request.steps, cell=is_crystal)
    rigid_motions(atoms)
    if request.relax:
        check_writable(request.relaxed_file, inputs=[request.source])
        output_format(request.relaxed_file)
    if is_crystal:
        from mlip.cli.vibrations_of_crystals import plan

        return plan(request, **{name.replace("-", "_"): value for name, value in crystal.items()})
    from mlip.cli.vibrations_of_molecules import plan as plan_molecule

    return plan_molecule(request, is_gas=is_gas, **gas)


def _conclude(structure: Path, outcome: Outcome, chosen: dict[str, Any] | None) -> None:
    """Print, as JSON if `chosen`, the lines on what computed the energies, is given; and the exit status."""
    if chosen is not None:
        import mlip

        head = {"command": "vibrations", "mlip_version": mlip.__version__, **chosen, "file": str(structure)}
        print(json.dumps({**head, **outcome.report}, indent=2))
    else:
        print(f"{structure}: {outcome.text}")
    if outcome.missed:
        print(f"{structure}: {outcome.missed}", file=sys.stderr)
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _hessian_method(name: str | None) -> HessianMethod | None:
    from mlip.hessian import HessianMethod

    for method in get_args(HessianMethod):
        if method == name:
            return method
    if name is not None:
        raise InputError(f'--hessian is "{name}" but must be one of: {", ".join(get_args(HessianMethod))}')
    return None


def _kind(is_crystal: bool, is_gas: bool) -> str:
    if is_crystal:
        return "a crystal"
    return "a free molecule" if is_gas else "neither: it has fixed atoms, or one or two periodic directions"


def refuse_if_moving(request: Request, surface: Surface) -> None:
    """See that the structure is at rest, and warn if it is unlike those that the model was trained on.

    Raises:
        InputError: The forces are too large for vibrations to mean anything.
    """
    import numpy as np

    from mlip.calculators.ase_calculator import warn_if_novel
    from mlip.rigid_motions import rigid_motions

    (here,) = surface.evaluate([request.atoms])
    if here.novelty is not None:
        warn_if_novel(request.atoms, here.novelty)
    forces = here.forces * rigid_motions(request.atoms).free.reshape(-1, 3)
    fmax = float(np.linalg.norm(forces, axis=1).max())
    if fmax > request.fmax:
        raise InputError(
            f"not at rest: the largest force is {fmax:.3g} eV/Å, above --fmax {request.fmax:g}, and "
            "vibrations are about a point of rest: relax first (--relax)"
        )


def not_computed(what: str, end: RelaxResult) -> str:
    """Why there is nothing of a structure that a relaxation did not bring to rest."""
    return (
        f"{what} were not computed, as the relaxation "
        f"{end.message or 'did not come to rest: give more --steps'}"
    )


def write_relaxed(request: Request, atoms: Atoms) -> None:
    """Write the relaxed structure."""
    write_structures(request.relaxed_file, [atoms], format=output_format(request.relaxed_file))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before messages that do not have it."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from None


@contextmanager
def progress(label: str) -> Iterator[Callable[[str], None]]:
    """A live line on stderr, on a terminal only; yields what changes its end."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as status:
        yield lambda text: status.update(f"{label}  {text}")


def step_text(step: RelaxStep) -> str:
    """A step of a relaxation, for `progress`."""
    return f"step {step.step}  energy {step.energy:.4f} eV  fmax {step.fmax:.4f} eV/Å"
