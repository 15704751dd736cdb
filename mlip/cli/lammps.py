"""`mlip lammps build|path|check`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli import EXIT_NOT_CONVERGED
from mlip.errors import InputError

if TYPE_CHECKING:
    from mlip.lammps_plugin.check import Comparison
    from mlip.lammps_plugin.installation import Lammps

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

Source = Annotated[
    Path | None, typer.Option("--lammps-src", metavar="DIR", help="Source of your own LAMMPS (holds src/).")
]
Prefix = Annotated[
    Path | None, typer.Option("--lammps-prefix", metavar="DIR", help="Your own LAMMPS as installed.")
]
MPIInclude = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of mpi.h of your own LAMMPS; default: as mpicxx says."),
]
Size = Annotated[str, typer.Option(help="Integers of your own LAMMPS: smallbig or bigbig.")]


def _target(source: Path | None, prefix: Path | None, mpi_include: Path | None, size: str) -> Lammps:
    from mlip.lammps_plugin.installation import from_prefix, from_source, wheel

    if source is not None and prefix is not None:
        raise InputError("--lammps-src and --lammps-prefix name two installations: give one")
    if source is not None:
        return from_source(source, mpi_include=mpi_include, size=size)
    if prefix is not None:
        return from_prefix(prefix, mpi_include=mpi_include, size=size)
    if mpi_include is not None or size != "smallbig":
        raise InputError("--mpi-include and --size belong to --lammps-src or --lammps-prefix")
    return wheel()


@app.callback()
def _group() -> None:
    """The pair style of LAMMPS: compile it, find it, check it."""


@app.command(short_help="Compile the pair style.")
def build(
    lammps_src: Source = None,
    lammps_prefix: Prefix = None,
    mpi_include: MPIInclude = None,
    size: Size = "smallbig",
) -> None:
    """Compile `pair_style mlip` for the LAMMPS of pip, or for your own; print where it is.

    It is kept for each version of torch, LAMMPS, MPI and polyad. The LAMMPS of pip loads it by itself; in an
    input of your own LAMMPS, write `plugin load` and the path.
    """
    from mlip.lammps_plugin.build import build_plugin

    target = _target(lammps_src, lammps_prefix, mpi_include, size)
    if sys.stderr.isatty():
        print("compiling; this takes half a minute", file=sys.stderr)
    print(build_plugin(target))


@app.command(short_help="Print where the compiled plugin is.")
def path(
    lammps_src: Source = None,
    lammps_prefix: Prefix = None,
    mpi_include: MPIInclude = None,
    size: Size = "smallbig",
) -> None:
    """Print where the compiled plugin is; status 2 where it is not compiled."""
    print(_built(_target(lammps_src, lammps_prefix, mpi_include, size)))


def _built(target: Lammps) -> Path:
    """The plugin in the cache, which must be there."""
    from mlip.lammps_plugin.build import PLUGIN, cache_dir

    plugin = cache_dir(target) / PLUGIN
    if not plugin.is_file():
        raise InputError(
            "the pair style is not built for these versions of LAMMPS, MPI and torch: mlip lammps build"
        )
    return plugin


@app.command(short_help="Compare LAMMPS with Python on this machine.")
def check(
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = "default",
    package: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What was exported of that model; exported anew by default."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type to export in, without --package.")] = "float64",
    lmp: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Your own LAMMPS, with the plugin that LAMMPS_PLUGIN_PATH has for it; default: pip's.",
        ),
    ] = None,
    mpiexec: Annotated[str | None, typer.Option(metavar="FILE", help="Launcher; default: pip's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare LAMMPS with Python, and two processes with one, on this machine.

    Energy, forces, virial and per-atom values of a crystal, a sheared cell, a slab that leaves a process
    without atoms, a cluster, and with newton off. Exits 0 when all agree, 3 when some do not.
    """
    from mlip.lammps_plugin.installation import wheel

    programs = [_program("lmp", lmp), _program("mpiexec", mpiexec)]
    if dtype not in ("float64", "float32"):
        raise InputError(f'`--dtype` is "{dtype}" but must be float64 or float32')
    if lmp is None:
        _built(wheel())
    results = _compare(model, package, dtype, *programs, own=lmp is not None)
    ok = all(result.ok for result in results)
    if as_json:
        from dataclasses import asdict

        print(
            json.dumps(
                {"command": "lammps check", "ok": ok, "results": [asdict(r) for r in results]}, indent=2
            )
        )
    else:
        _show(results)
        print("all agree" if ok else "NOT all agree: do not trust this installation")
    if not ok:
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _program(name: str, given: str | None) -> str:
    """Absolute path of a program, which is run in another folder: pip's if none is given."""
    if given is None:
        from mlip.lammps_plugin.installation import program

        return program(name, f"--{name}")
    found = shutil.which(given) or shutil.which(Path(given).absolute())
    if found is None:
        raise InputError(
            f'`--{name}` is "{given}" but must be a program: name a file that may be executed, or one on the '
            "PATH"
        )
    return str(Path(found).absolute())


def _check_origin(package: Path, metadata: dict[str, str], model: str) -> None:
    """The package must come from the file of the model."""
    from mlip.checkpoint import resolve_model
    from mlip.lammps_plugin.export import model_hash

    origin, here = metadata["model_hash"], model_hash(resolve_model(model))
    if origin != here:
        # 12 digits tell apart files of the same name.
        raise InputError(
            f"{package} was exported from {metadata['model']} ({origin[:19]}), not from {model} "
            f"({here[:19]}): name that with --model"
        )


def _compare(
    model: str, package: Path | None, dtype: str, lmp: str, mpiexec: str, *, own: bool
) -> list[Comparison]:
    import torch

    from mlip.checkpoint import load_potential
    from mlip.lammps_plugin.check import check as run_check
    from mlip.lammps_plugin.export import export_potential, read_metadata

    with tempfile.TemporaryDirectory(prefix="mlip-check-") as folder:
        if package is None:
            if sys.stderr.isatty():
                print("exporting the model; this takes half a minute", file=sys.stderr)
            package = export_potential(model, Path(folder) / "model.pt2", dtype=getattr(torch, dtype)).path
        metadata = read_metadata(package)
        _check_origin(package, metadata, model)
        potential = load_potential(model, dtype=getattr(torch, metadata["dtype"]))
        return run_check(potential, package, folder=Path(folder), lmp=[lmp], mpiexec=mpiexec, own=own)


def _show(results: list[Comparison]) -> None:
    print(f"{'':26}{'':>18}  energy/atom  per-atom    forces    virial  per-atom virial")
    for r in results:
        d = r.difference
        numbers = f"{d.energy:11.1e} {d.energies:9.1e} {d.forces:9.1e} {d.virial:9.1e} {d.atom_virials:16.1e}"
        print(f"{r.case:26}{r.between:>18}  {numbers}  {'ok' if r.ok else 'DIFFERS'}")
    print("largest differences: eV, eV, eV/Å, and of virials relative to the largest component")
