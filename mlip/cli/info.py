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
    for name, value in facts.items():
        for line in _lines(name, value):
            print(line)


def model_facts(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The header as it is to be shown: elements by symbol, with the size of the file and the number of
    weights."""
    facts: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size, "weights": _count_weights(path)}
    for key, value in header.items():
        if key == "species":
            facts[key] = [_symbol(z) for z in value]
        elif key == "e0s":
            zs = header.get("species", [])
            facts[key] = (
                dict(zip([_symbol(z) for z in zs], value, strict=True)) if isinstance(value, list) else value
            )
        else:
            facts[key] = value
    return facts


def _symbol(number: int | str) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[number] if isinstance(number, int) else number


def _count_weights(path: Path) -> int:
    """Numbers stored in a safetensors file, counted from its header alone."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    total = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        size = 1
        for extent in tensor["shape"]:
            size *= extent
        total += size
    return total


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
    return [f"{margin}{name}: {value}"]
