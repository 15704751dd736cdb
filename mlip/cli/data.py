"""`mlip data`: info, validate, split, thin, convert, generate."""

from __future__ import annotations

from typing import Any

import typer

from mlip.cli.data_convert import convert
from mlip.cli.data_options import (
    AsJson,
    DataFile,
    EnergyKey,
    ForcesKey,
    Format,
    GroupKey,
    StressKey,
    VirialKey,
    label_keys,
    print_json,
    print_table,
)
from mlip.cli.data_split import split, thin
from mlip.cli.data_validate import validate
from mlip.cli.generate import generate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Inspect, validate, split, thin, convert, generate data sets.",
)
app.command("validate", short_help="Find faults; --fix writes a copy without them.")(validate)
app.command("split", short_help="Divide into training, validation and test set.")(split)
app.command("thin", short_help="Leave out frames that hardly differ.")(thin)
app.command("convert", short_help="Gather data sets in one file.")(convert)
app.command("generate", short_help="Make labelled frames of molecules.")(generate)


@app.command("info", short_help="Show what a data set holds.")
def info(
    file: DataFile,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Show what a data set holds: elements, sizes, labels and their keys, spread of energies and forces."""
    from mlip.datasets import read_frames
    from mlip.datasets.statistics import summarise

    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format)
    facts = summarise(frames)
    if as_json:
        print_json({"command": "data info", "file": str(file), "read": frames.report.as_dict(), **facts})
        return
    print("\n".join(frames.report.lines()))
    print_table("", ["", ""], _info_rows(facts))


def _info_rows(facts: dict[str, Any]) -> list[list[str]]:
    """The summary as lines of a table."""
    sizes, periodic, labelled = facts["sizes"], facts["periodic"], facts["labelled"]
    rows = [
        ["frames", str(facts["frames"])],
        ["atoms", f"{facts['atoms']} ({sizes['min']} to {sizes['max']} a frame, median {sizes['median']:g})"],
        ["elements", ", ".join(f"{s} ({e['atoms']} atoms)" for s, e in facts["elements"].items())],
        ["compositions, groups", f"{facts['compositions']}, {facts['groups']}"],
        [
            "molecules, reactions, trajectories",
            f"{facts['molecules']}, {facts['reactions']}, {facts['trajectories']}",
        ],
        ["periodic directions", ", ".join(f"{name}: {n}" for name, n in periodic.items() if n)],
        ["labels", ", ".join(f"{name}: {n}" for name, n in labelled.items())],
    ]
    if facts["charged"] or facts["open_shell"]:
        rows.append(["charged, open-shell", f"{facts['charged']}, {facts['open_shell']}"])
    energy = facts["energy_per_atom"]
    if energy is not None:
        text = (
            f"{energy['min']:.6g} to {energy['max']:.6g}, mean {energy['mean']:.6g}, std {energy['std']:.4g}"
        )
        rows.append(["energy, eV/atom", text])
    for name, unit in (("forces", "eV/Å"), ("stress", "eV/Å³")):
        if facts[name] is not None:
            rows.append(
                [f"{name}, {unit}", f"rms {facts[name]['rms']:.4g}, largest {facts[name]['max']:.4g}"]
            )
    if facts["isolated_atoms"]:
        rows.append(
            ["isolated atoms, eV", ", ".join(f"{s}: {e}" for s, e in facts["isolated_atoms"].items())]
        )
    fit = facts["least_squares_e0"]
    if fit is not None:
        text = (
            ", ".join(f"{s}: {e:.6g}" for s, e in fit["e0"].items())
            + f"; leaves {fit['rms_per_atom']:.4g} eV/atom"
        )
        rows.append(
            ["fitted E0, eV", text + ("" if fit["determined"] else " (not determined by these compositions)")]
        )
    return rows
