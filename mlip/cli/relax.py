"""`mlip relax`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli import EXIT_NOT_CONVERGED
from mlip.cli.calculator_choice import about_model, check_computable
from mlip.cli.relax_many import Where, is_many, relax_into_database
from mlip.cli.structure_files import (
    check_writable,
    output_format,
    read_structures,
    relaxed_name,
    write_structures,
)
from mlip.errors import InputError
from mlip.search.relax import RelaxResult, RelaxStep, check_relaxation
from mlip.search.relax import relax as run_relaxation

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One structure: where it came from, where it goes."""

    source: Path
    frame: int
    frames: int
    atoms: Atoms
    output: Path
    trajectory: Path | None

    @property
    def label(self) -> str:
        """Of several in a file, ASE's name for it."""
        return f"{self.source}" if self.frames == 1 else f"{self.source}@{self.frame}"


def relax(
    structures: Annotated[
        list[Path],
        typer.Argument(
            metavar="STRUCT",
            help="Files in any format that ASE reads; with --out FILE.db also folders and databases.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = "default",
    fmax: Annotated[
        float,
        typer.Option(help="Converged when no force is larger than this, eV/Å; `vibrations` wants 0.01."),
    ] = 0.05,
    steps: Annotated[int, typer.Option(help="Give up after this many steps.")] = 500,
    optimizer: Annotated[
        str,
        typer.Option(
            help="auto, internal, lbfgs or fire; for a single structure also bfgs, bfgs-line-search or rfo."
        ),
    ] = "auto",
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too.")] = False,
    pressure: Annotated[
        float, typer.Option(metavar="GPA", help="External pressure, GPa; with --cell.")
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Result; default STRUCT-relaxed.xyz beside each input. FILE.db: all, in batches.",
        ),
    ] = None,
    trajectory: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Path taken, .traj or .xyz; one structure only.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers compute; with --out FILE.db."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
) -> None:
    """Relax molecules, and crystals with --cell, to the nearest minimum.

    Exits 0 when all structures converged, 3 when some did not or ran away (what was reached is written all
    the same), 2 when something given cannot be used. Inputs are never overwritten.

    With --out FILE.db any number of structures is relaxed in batches. Each is one row of an ASE database with
    its status, energy, steps and time; what cannot be read or relaxed is a row that says why, and stops
    nothing. The same command goes on after an interruption, tries again what failed and repeats nothing else.
    """
    options: dict[str, Any] = {
        "fmax": fmax, "steps": steps, "optimizer": optimizer, "cell": cell, "pressure_gpa": pressure
    }  # fmt: skip
    where = Where(model=model, device=device, dtype=dtype, scheduler=scheduler)
    if is_many(structures, out):
        assert out is not None
        if trajectory is not None:
            raise InputError("--trajectory holds the path of one structure: leave it out with --out FILE.db")
        relax_into_database(structures, out, where, options, as_json=as_json)
    elif scheduler is not None:
        raise InputError("--scheduler needs a database for the results: --out results.db")
    else:
        _relax_each(_plan(structures, out, trajectory), where, options, as_json=as_json)


def _relax_each(tasks: list[_Task], where: Where, options: dict[str, Any], *, as_json: bool) -> None:
    """One after another, each into its own file or all into one."""
    for task in tasks:
        with _naming(task):
            check_relaxation(task.atoms, trajectory=task.trajectory, **options)
    from mlip.calculators import MLIPCalculator

    calculator = MLIPCalculator(where.model, device=where.device, dtype=where.dtype)
    for task in tasks:
        with _naming(task):
            check_computable(task.atoms, calculator)
    about, counting = about_model(where.model, where.dtype), itertools.count(1)

    def run(task: _Task) -> RelaxResult:
        with _naming(task), _progress(f"{task.label} [{next(counting)}/{len(tasks)}]") as show:
            result = run_relaxation(
                task.atoms, calculator, trajectory=task.trajectory, callback=show, **options
            )
        result.atoms.info.update(
            model=where.model, model_sha256=about["model_sha256"], converged=result.converged
        )
        if result.message:
            print(f"{task.label}: {result.message}", file=sys.stderr)
        return result

    records: list[tuple[_Task, RelaxResult]] = []
    for output, together in itertools.groupby(tasks, key=lambda task: task.output):
        records += _relax_into(output, list(together), run, quiet=as_json)
    if as_json:
        print(json.dumps(_report(records, {**about, "device": str(calculator.device)}, options), indent=2))
    if not all(result.converged for _, result in records):
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _relax_into(
    output: Path, tasks: list[_Task], run: Callable[[_Task], RelaxResult], *, quiet: bool
) -> list[tuple[_Task, RelaxResult]]:
    """Relax the structures of one output and write it; when stopped before the last, with those that are
    done."""
    records: list[tuple[_Task, RelaxResult]] = []
    try:
        for task in tasks:
            records.append((task, run(task)))
            if len(tasks) > 1 and not quiet:
                print(_line(*records[-1]))
    finally:
        if records:
            done = [result.atoms for _, result in records]
            write_structures(output, done, format=output_format(output, frames=len(tasks)))
            if not quiet:
                of = "" if len(done) == len(tasks) else f" of {len(tasks)}"
                what = _line(*records[0]) if len(tasks) == 1 else f"{len(done)}{of} structures"
                print(f"{what} -> {output}")
    return records


def _plan(structures: list[Path], out: Path | None, trajectory: Path | None) -> list[_Task]:
    """Read everything and settle every output before anything is computed."""
    read = {path: read_structures(path) for path in structures}
    total = sum(len(frames) for frames in read.values())
    if len(read) < len(structures):
        raise InputError("the same file is given twice: give each structure once")
    if trajectory is not None and total > 1:
        raise InputError(
            f"--trajectory holds the path of one structure, but there are {total}: relax them one by one"
        )
    outputs = {
        path: out if out is not None else relaxed_name(path, frames=len(frames))
        for path, frames in read.items()
    }
    if out is None and len(set(outputs.values())) < len(outputs):
        raise InputError("two inputs would be written to the same file: name the result with --out")
    for path, output in outputs.items():
        check_writable(output, inputs=structures)
        output_format(output, frames=total if out is not None else len(read[path]))
    if trajectory is not None:
        check_writable(trajectory, inputs=[*structures, *(o for o in outputs.values() if o.exists())])
    return [
        _Task(
            source=path,
            frame=frame,
            frames=len(frames),
            atoms=atoms,
            output=outputs[path],
            trajectory=trajectory,
        )
        for path, frames in read.items()
        for frame, atoms in enumerate(frames)
    ]


@contextmanager
def _naming(task: _Task) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{task.label}: {error}") from None


@contextmanager
def _progress(label: str) -> Iterator[Callable[[RelaxStep], None] | None]:
    """A live line on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as status:
        yield lambda step: status.update(
            f"{label}  step {step.step}  energy {step.energy:.4f} eV  fmax {step.fmax:.4f} eV/Å"
        )


def _line(task: _Task, result: RelaxResult) -> str:
    verdict = "converged in" if result.converged else "NOT converged after"
    steps = f"{result.steps} step{'' if result.steps == 1 else 's'}"
    change = result.energy - result.initial_energy
    pressure = "" if result.pressure_gpa is None else f", pressure {result.pressure_gpa:.3f} GPa"
    return (
        f"{task.label}: {verdict} {steps}, energy {result.energy:.6f} eV ({change:+.6f}), "
        f"fmax {result.fmax:.4f} eV/Å{pressure}"
    )


def _report(
    records: list[tuple[_Task, RelaxResult]], about: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    import mlip

    return {
        "command": "relax",
        "mlip_version": mlip.__version__,
        **about,
        **{f"{key}" if key != "optimizer" else "optimizer_asked": value for key, value in options.items()},
        "converged": all(result.converged for _, result in records),
        "structures": [
            {
                "file": str(task.source),
                "frame": task.frame,
                "formula": result.atoms.get_chemical_formula(),
                "atoms": len(result.atoms),
                "converged": result.converged,
                "message": result.message,
                "steps": result.steps,
                "optimizer": result.optimizer,
                "initial_energy_eV": result.initial_energy,
                "energy_eV": result.energy,
                "fmax_eV_per_A": result.fmax,
                "pressure_GPa": result.pressure_gpa,
                "volume_A3": float(result.atoms.cell.volume) if result.atoms.pbc.all() else None,
                "output": str(task.output),
                "seconds": round(result.seconds, 4),
            }
            for task, result in records
        ],
    }
