"""`mlip data`: info, validate, split, convert."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mlip.datasets import LabelKeys

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Inspect, validate, split, convert data sets.",
)

DataFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="extxyz, ASE .db/.json/.traj, .h5, mlearn .json(.gz), MD17 .npz."),
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
    typer.Option(help="extxyz, ase-db, ase-json, ase-traj, hdf5, mlearn, npz; by default from the ending."),
]


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

    keys = _keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format)
    facts = summarise(frames)
    if as_json:
        _print_json({"command": "data info", "file": str(file), "read": frames.report.as_dict(), **facts})
        return
    print("\n".join(frames.report.lines()))
    _table("", ["", ""], _info_rows(facts))


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

    keys = _keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format, check=False)
    e0s = None if isolated_atoms is None else read_isolated_atoms(isolated_atoms)
    wanted = [r.strip() for r in require.split(",") if r.strip()]
    findings = validate_frames(frames, require=wanted, e0s=e0s)
    errors = [f for f in findings if f.severity == "error"]
    if as_json:
        _print_json(
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
            _table("", ["severity", "check", "frames", "first"], rows)
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

    keys = _keys(energy_key, forces_key, stress_key, virial_key, group_key)
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
        _print_json({"command": "data split", **facts, "read": frames.report.as_dict()})
        return
    print("\n".join(frames.report.lines()))
    _table(
        "",
        ["file", "frames", "groups"],
        [[str(w["file"]), str(w["frames"]), str(w["groups"])] for w in written],
    )


@app.command("convert")
def convert(
    source: DataFile,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .xyz, .xyz.gz, .h5, .db.")],
    level_of_theory: Annotated[str, typer.Option(help="Kept in .h5, as wB97X-D/def2-TZVP.")] = "",
    licence: Annotated[str, typer.Option(help="Kept in .h5.")] = "",
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set in another format; labels come out in eV, eV/Å and eV/Å³ (tension positive)."""
    from mlip.datasets import ReadReport, iter_frames, write_frames

    keys = _keys(energy_key, forces_key, stress_key, virial_key, group_key)
    report = ReadReport()
    frames = iter_frames(source, keys=keys, format=format, report=report)
    attributes = {"level_of_theory": level_of_theory, "source": source.name, "licence": licence}
    count = write_frames(target, frames, attributes=attributes)
    if as_json:
        facts = {"source": str(source), "file": str(target), "frames": count, "read": report.as_dict()}
        _print_json({"command": "data convert", **facts})
        return
    print("\n".join(report.lines()))
    if report.dropped:
        print("  not kept: " + ", ".join(f"`{k}`" for k in report.dropped))
    print(f"{target}: {count} frames written")


def _keys(
    energy: str | None, forces: str | None, stress: str | None, virial: str | None, group: str | None
) -> LabelKeys:
    from mlip.datasets import LabelKeys

    return LabelKeys(energy=energy, forces=forces, stress=stress, virial=virial, group=group)


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


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
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


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
