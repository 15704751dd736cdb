"""`mlip data`: info, validate, split, convert, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from mlip.cli.generate import generate

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Inspect, validate, split, convert, generate data sets.",
)
app.command("convert")(convert)
app.command("generate")(generate)


@app.command("info")
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


@app.command("validate")
def validate(
    file: DataFile,
    require: Annotated[str, typer.Option(help="Labels that must be there, as energy,forces,stress.")] = "",
    isolated_atoms: Annotated[
        Path | None, typer.Option(help="File of isolated atoms, to test the energies against.")
    ] = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Check a data set; exits with 2 if there are errors."""
    from mlip.datasets import read_frames, read_isolated_atoms
    from mlip.datasets.validate import validate_frames
    from mlip.errors import InputError

    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format, check=False)
    e0s = None if isolated_atoms is None else read_isolated_atoms(isolated_atoms)
    wanted = [r.strip() for r in require.split(",") if r.strip()]
    findings = validate_frames(frames, require=wanted, e0s=e0s)
    errors = [f for f in findings if f.severity == "error"]
    if as_json:
        print_json(
            {
                "command": "data validate",
                "file": str(file),
                "frames": len(frames),
                "valid": not errors,
                "findings": [f.as_dict() for f in findings],
                "read": frames.report.as_dict(),
            }
        )
    else:
        print("\n".join(frames.report.lines()))
        if findings:
            rows = [[f.severity, f.check, str(f.count), f.example] for f in findings]
            print_table("", ["severity", "check", "frames", "first"], rows)
        else:
            print("nothing to remark")
    if errors:
        first = errors[0]
        counts = f"{len(errors)} check" + ("s" if len(errors) > 1 else "")
        raise InputError(
            f"{file}: {counts} failed, the first: {first.check} ({first.count} frames; {first.example})"
        )


@app.command("split")
def split(
    file: DataFile,
    out_dir: Annotated[Path, typer.Option(help="Folder for the parts.")],
    fractions: Annotated[
        str, typer.Option(help="Size of every part, adding up to at most 1.")
    ] = "0.8,0.1,0.1",
    by: Annotated[
        str, typer.Option(help="frame, or group to keep a molecule or trajectory together.")
    ] = "frame",
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0,
    suffix: Annotated[str, typer.Option(help="Ending of the parts: .xyz, .h5, .db.")] = "",
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Divide a data set at random, but always in the same way, into train, valid and test."""
    from mlip.datasets import data_hash, read_frames, split_frames, write_frames

    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format)
    parts = split_frames(frames, _fractions(fractions), by=by, seed=seed)
    ending = suffix or (".h5" if frames.report.format == "hdf5" else ".xyz")
    written = []
    for name, part in zip(_part_names(len(parts)), parts, strict=True):
        path = out_dir / f"{name}{ending if ending.startswith('.') else '.' + ending}"
        write_frames(path, part)
        groups = len({f.group or f.formula for f in part})
        written.append(
            {"file": str(path), "frames": len(part), "groups": groups, "data_hash": data_hash(part)}
        )
    if as_json:
        facts = {"file": str(file), "by": by, "seed": seed, "parts": written}
        print_json({"command": "data split", **facts, "read": frames.report.as_dict()})
        return
    print("\n".join(frames.report.lines()))
    print_table(
        "",
        ["file", "frames", "groups"],
        [[str(w["file"]), str(w["frames"]), str(w["groups"])] for w in written],
    )


def _fractions(text: str) -> list[float]:
    from mlip.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"`--fractions` is {text!r} but must be numbers, as 0.8,0.1,0.1") from None


def _part_names(count: int) -> list[str]:
    usual = {1: ["train"], 2: ["train", "valid"], 3: ["train", "valid", "test"]}
    return usual.get(count) or [f"part{i}" for i in range(count)]


def _info_rows(facts: dict[str, Any]) -> list[list[str]]:
    """The summary as lines of a table."""
    sizes, periodic, labelled = facts["sizes"], facts["periodic"], facts["labelled"]
    rows = [
        ["frames", str(facts["frames"])],
        ["atoms", f"{facts['atoms']} ({sizes['min']} to {sizes['max']} a frame, median {sizes['median']:g})"],
        ["elements", ", ".join(f"{s} ({e['atoms']} atoms)" for s, e in facts["elements"].items())],
        ["compositions, groups", f"{facts['compositions']}, {facts['groups']}"],
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
