"""`mlip info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a bundled model, or a model file.")
    ] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show what a model file holds; the weights are not loaded."""
    from mlip.checkpoint import read_header, resolve_model

    path = resolve_model(model)
    facts = model_facts(path, read_header(path))
    if as_json:
        print(json.dumps({"command": "info", **facts}, indent=2))
        return
    errors = facts.get("metrics")
    tabular = isinstance(errors, dict) and all(isinstance(of_frames, dict) for of_frames in errors.values())
    for name, value in facts.items():
        if name != "metrics" or not tabular:
            print("\n".join(_lines(name, value)))
    if errors and tabular:
        from mlip.training.report import metrics_table

        print(f"errors (by element too with --json):\n{metrics_table(errors)}")


def model_facts(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The header as it is to be shown: elements by symbol, with the file and its size in bytes."""
    from ase.data import chemical_symbols

    facts: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size, **header}
    facts["species"] = [chemical_symbols[number] for number in header["species"]]
    facts["e0s"] = {chemical_symbols[int(number)]: energy for number, energy in header["e0s"].items()}
    return facts


def _lines(name: str, value: Any, indent: int = 0) -> list[str]:
    """`name: value`, dictionaries one level deeper."""
    margin = "  " * indent
    if isinstance(value, dict):
        return [
            f"{margin}{name}:",
            *(line for key, held in value.items() for line in _lines(str(key), held, indent + 1)),
        ]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    elif isinstance(value, float):
        value = float(f"{value:.9g}")
    return [f"{margin}{name}: {value}"]
