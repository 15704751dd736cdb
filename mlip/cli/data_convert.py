"""`mlip data convert`: files of any format into one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.data_options import (
    AsJson,
    EnergyKey,
    Force,
    ForcesKey,
    GroupKey,
    StressKey,
    VirialKey,
    check_new,
    label_keys,
    print_json,
    print_table,
)
from mlip.errors import InputError

if TYPE_CHECKING:
    from mlip.datasets.convert import Conversion


def convert(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files, or folders of files.")],
    out: Annotated[Path, typer.Option(help="File to write: .h5 (resumable), .xyz, .xyz.gz, .db.")],
    format: Annotated[
        str | None,
        typer.Option(help="Of the inputs, as pubchemqcr or spice; by default from ending and content."),
    ] = None,
    level_of_theory: Annotated[str, typer.Option(help="Kept in .h5, as wB97X-D/def2-TZVP.")] = "",
    licence: Annotated[str, typer.Option(help="Kept in .h5.")] = "",
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Gather data sets in one file; labels come out in eV, eV/Å, eV/Å³ (tension positive) and eV/Å².

    The inputs are read frame by frame. Into .h5, a command that was interrupted goes on where it stopped when
    it is given again, and further inputs are added to the file; no input gets into it twice. Other files are
    replaced with --force only.
    """
    from mlip.cli.interruption import SIGNALLED, Interruption
    from mlip.datasets.convert import convert as run

    resumable = out.suffix.lower() in (".h5", ".hdf5")
    if not resumable:
        check_new(out, inputs=inputs, force=force)
    elif force and out.exists():
        raise InputError(f"{out}: is extended, not replaced: to start anew, remove it first")
    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    shown = sys.stderr.isatty()

    def progress(frames: int) -> None:
        if shown:
            print(f"\r{frames} frames", end="", file=sys.stderr, flush=True)

    with Interruption() as stop:
        result = run(
            inputs,
            out,
            format=format,
            keys=keys,
            attributes={"level_of_theory": level_of_theory, "licence": licence},
            stop=stop,
            progress=progress,
        )
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
    if as_json:
        print_json({"command": "data convert", "inputs": [str(p) for p in inputs], **_facts(result)})
    elif resumable or not result.interrupted:
        print_table("", ["", ""], _rows(result))
    if result.interrupted:
        outcome = "the same command goes on from here" if resumable else "nothing was written"
        print(f"{out}: interrupted; {outcome}", file=sys.stderr)
        raise typer.Exit(SIGNALLED + stop.number)


_PLURALS = {
    "group": "groups",
    "molecule": "molecules",
    "reaction": "reactions",
    "trajectory": "trajectories",
}


def _facts(result: Conversion) -> dict[str, object]:
    facts = result.as_dict()
    return {"file": facts.pop("out"), "files_read": facts.pop("inputs"), **facts}


def _rows(result: Conversion) -> list[list[str]]:
    """The summary as lines of a table."""
    there = f" ({result.already} were in it before)" if result.already else ""
    rows = [
        ["file", f"{result.out}: {result.frames} frames" + (" so far" if result.interrupted else "")],
        ["inputs", f"{result.inputs}{there}"],
    ]
    if result.belonging:
        rows.append(
            [", ".join(_PLURALS[k] for k in result.belonging), ", ".join(map(str, result.belonging.values()))]
        )
    for label, count in result.labelled.items():
        if count:
            origin = ", ".join(f"{name}: {n}" for name, n in result.sources.get(label, {}).items())
            rows.append([label, f"{count} frames; from {origin}" if origin else f"{count} frames"])
    rows += [["skipped", f"{reason}: {n}"] for reason, n in result.skipped.items()]
    rows += [["note", f"{note} ({n} frames)"] for note, n in result.notes.items()]
    if result.dropped:
        rows.append(["not kept", ", ".join(f"{name} ({n} frames)" for name, n in result.dropped.items())])
    return rows
