"""`mlip export`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from mlip.cli.structure_files import check_writable
from mlip.errors import InputError


def export(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The package, *.pt2.")],
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = "default",
    format: Annotated[str, typer.Option(help="lammps.")] = "lammps",
    dtype: Annotated[
        str | None, typer.Option(help="float64 or float32; default: as the model was saved.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu.")] = "cpu",
    portable: Annotated[
        bool,
        typer.Option(
            "--portable", help="For any processor with AVX2, not just for those like this machine's."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compile a model for `pair_style mlip` of LAMMPS.

    Takes half a minute and a C++ compiler. The package holds the weights and serves any number of processes;
    it belongs to the version of PyTorch that made it. Its numbers are compared with the model's before it is
    written.
    """
    if format != "lammps":
        raise InputError(f'`--format` is "{format}" but must be lammps')
    if device != "cpu":
        raise InputError(f'`--device` is "{device}" but must be cpu: there are no kernels for others yet')
    if dtype not in (None, "float64", "float32"):
        raise InputError(f'`--dtype` is "{dtype}" but must be float64 or float32')
    check_writable(out, inputs=[Path(model)] if Path(model).is_file() else [])
    start = time.perf_counter()
    import torch

    from mlip.lammps_plugin.export import export_potential

    result = export_potential(
        model, out, dtype=None if dtype is None else getattr(torch, dtype), portable=portable
    )
    seconds = round(time.perf_counter() - start, 2)
    if as_json:
        facts = {"out": str(out), **result.metadata, "difference": result.difference, "seconds": seconds}
        print(json.dumps({"command": "export", **facts}, indent=2))
        return
    known = result.metadata["symbols"]
    print(
        f"{out}: {known}, {result.metadata['dtype']}, {result.metadata['instructions']}; {seconds:.0f} s; "
        f"differs from the model by {result.difference:.0e} of the largest number"
    )
    print(f"in LAMMPS:  pair_style mlip\n            pair_coeff * * {out} {known}")
