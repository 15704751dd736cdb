"""Options that the subcommands of `mlip data` share, and how they print."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mlip.datasets import LabelKeys

DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A file of any format that datasets/README.md lists: .xyz, .h5, .db, .npz, …."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
EnergyKey = Annotated[
    str | None, typer.Option(help="Name of the energy (eV); by default REF_energy, energy, ….")
]
ForcesKey = Annotated[
    str | None, typer.Option(help="Name of the forces (eV/Å); by default REF_forces, forces, ….")
]
StressKey = Annotated[str | None, typer.Option(help="Name of the stress (eV/Å³, tension positive).")]
VirialKey = Annotated[str | None, typer.Option(help="Name of the virial (eV, −stress × volume).")]
GroupKey = Annotated[str | None, typer.Option(help="Name of the molecule or trajectory of a frame.")]
Format = Annotated[
    str | None,
    typer.Option(help="Name of the format, as spice; by default from ending and content."),
]

Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def check_new(path: Path, *, inputs: list[Path], force: bool) -> None:
    """See that a result can go to `path`: it exists only if it may be replaced, and is never an input.

    Raises:
        InputError: It cannot.
    """
    from mlip.datasets.formats import detect_format
    from mlip.datasets.write import WRITABLE
    from mlip.errors import InputError

    if (kind := detect_format(path)) not in WRITABLE:
        raise InputError(f"{path}: cannot write the format {kind}; those that can be: {', '.join(WRITABLE)}")
    if not path.exists():
        return
    if any(path.samefile(given) for given in inputs if given.exists()):
        raise InputError(f"{path}: is an input, which is never overwritten: give another name")
    if not force:
        raise InputError(f"{path}: exists already; give another name, or replace it with --force")


def label_keys(
    energy: str | None, forces: str | None, stress: str | None, virial: str | None, group: str | None
) -> LabelKeys:
    """The names that were given."""
    from mlip.datasets import LabelKeys

    return LabelKeys(energy=energy, forces=forces, stress=stress, virial=virial, group=group)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print lines as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
