"""`mlip data split` and `mlip data thin`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlip.cli.data_options import (
    AsJson,
    DataFile,
    EnergyKey,
    Force,
    ForcesKey,
    Format,
    GroupKey,
    StressKey,
    VirialKey,
    check_new,
    label_keys,
    print_json,
    print_table,
)


def split(
    file: DataFile,
    out_dir: Annotated[Path, typer.Option(help="Folder for the parts.")],
    fractions: Annotated[
        str, typer.Option(help="Size of every part, adding up to at most 1.")
    ] = "0.8,0.1,0.1",
    by: Annotated[
        str,
        typer.Option(
            help="What stays together: group, molecule, reaction, trajectory, several with commas; or frame. "
            "By default group where the frames have any, else frame."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0,
    suffix: Annotated[str, typer.Option(help="Ending of the parts: .xyz, .h5, .db.")] = "",
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Divide a data set at random, but always in the same way, into train, valid and test.

    Copies of a structure never come apart, nor do frames of a group where there are groups: a molecule, say,
    unless the data set says otherwise. With --by, frames that have the molecule (reaction, trajectory, group)
    in common stay together, and so does what hangs together by a chain of such frames; frame divides frames
    of one molecule too.
    """
    from mlip.datasets import data_hash, read_frames, split_frames, write_frames
    from mlip.datasets.split import usual_key

    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    shares = _fractions(fractions)
    frames = read_frames(file, keys=keys, format=format)
    ending = suffix or (".h5" if frames.report.format == "hdf5" else ".xyz")
    ending = ending if ending.startswith(".") else f".{ending}"
    paths = [out_dir / f"{name}{ending}" for name in _part_names(len(shares))]
    for path in paths:
        check_new(path, inputs=[file], force=force)
    by = by or usual_key(frames)
    parts = split_frames(frames, shares, by=by, seed=seed)
    written = []
    for path, part in zip(paths, parts, strict=True):
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


def thin(
    file: DataFile,
    out: Annotated[Path, typer.Option(help="File to write: .xyz, .xyz.gz, .h5, .db.")],
    rmsd: Annotated[float, typer.Option(help="Keep what is further from the last frame kept, Å.")] = 0.1,
    energy: Annotated[float, typer.Option(help="Keep what differs by more in energy, eV.")] = 0.05,
    multiply_weights: Annotated[
        bool,
        typer.Option("--multiply-weights", help="Multiply weights by the number of frames stood for."),
    ] = False,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Thin trajectories: leave out frames that hardly differ from the last one kept.

    The first and last frame of a trajectory stay, and so do all frames outside of trajectories.
    """
    from mlip.datasets import data_hash, read_frames, write_frames
    from mlip.datasets.thin import thin_frames

    check_new(out, inputs=[file], force=force)
    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format)
    thinned = thin_frames(frames, rmsd=rmsd, energy=energy, multiply_weights=multiply_weights)
    write_frames(out, thinned.frames)
    facts = {
        "frames": len(frames),
        "kept": len(thinned.frames),
        "trajectories": thinned.trajectories,
        "stands_for_at_most": max(thinned.stands_for),
        "out": str(out),
    }
    if as_json:
        given = {"file": str(file), "rmsd_A": rmsd, "energy_eV": energy, "multiply_weights": multiply_weights}
        print_json({"command": "data thin", **given, **facts, "data_hash": data_hash(thinned.frames)})
        return
    print("\n".join(frames.report.lines()))
    print(f"{out}: {facts['kept']} of {facts['frames']} frames, {thinned.trajectories} trajectories")
    if not thinned.trajectories:
        print("no frame belongs to a trajectory (`trajectory`), so that nothing was thinned")


def _fractions(text: str) -> list[float]:
    from mlip.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"`--fractions` is {text!r} but must be numbers, as 0.8,0.1,0.1") from None


def _part_names(count: int) -> list[str]:
    usual = {1: ["train"], 2: ["train", "valid"], 3: ["train", "valid", "test"]}
    return usual.get(count) or [f"part{i}" for i in range(count)]
