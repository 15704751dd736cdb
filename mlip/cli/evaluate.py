"""`mlip evaluate`: errors of a model on labelled structures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    data: Annotated[Path, typer.Option(help="Labelled structures.", show_default=False)],
    model: Annotated[str, typer.Option(help="Model file, or the name of a bundled model.")] = "default",
    batch_size: Annotated[int, typer.Option(help="Structures computed together.", min=1)] = 32,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energy in the file.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Name of the forces in the file.")] = None,
    stress_key: Annotated[str | None, typer.Option(help="Name of the stress in the file.")] = None,
    data_format: Annotated[
        str | None, typer.Option("--format", help="Format, where the ending misleads.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Write the structures with predicted energies, forces and stress (extxyz)."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for parity plots.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Print the errors of a model on labelled structures: RMSE and MAE of energies, forces and stress."""
    from mlip.cli.structure_files import check_writable
    from mlip.training.evaluate_file import Request, evaluate_file

    if out is not None:
        check_writable(out, inputs=[data])

    request = Request(
        model=model,
        data=data,
        batch_size=batch_size,
        energy_key=energy_key,
        forces_key=forces_key,
        stress_key=stress_key,
        data_format=data_format,
        dtype=dtype,
        device=device,
        out=out,
        plot=plot,
    )
    result = evaluate_file(request, say=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(result.as_json(), ensure_ascii=False))
    else:
        typer.echo(result.table())
