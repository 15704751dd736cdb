"""`mlip data validate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from mlip.errors import InputError

if TYPE_CHECKING:
    from mlip.datasets import FrameList
    from mlip.datasets.validate import Finding


def validate(
    file: DataFile,
    require: Annotated[str, typer.Option(help="Labels that must be there, as energy,forces,stress.")] = "",
    isolated_atoms: Annotated[
        Path | None, typer.Option(help="File of isolated atoms, to test the energies against.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write what is left without faulty frames and duplicates."),
    ] = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    group_key: GroupKey = None,
    format: Format = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check a data set; exits with 2 if there are errors, unless --fix leaves them out of a copy.

    The copy has no frame with an error and one of each set of duplicates. Warnings stay in it, and no label
    is changed: wrong units and signs, of the whole set, are for you to mend, and still end with 2.
    """
    from mlip.datasets import read_frames, read_isolated_atoms
    from mlip.datasets.validate import validate_frames, without_faults

    if fix is not None:
        check_new(fix, inputs=[file], force=force)
    keys = label_keys(energy_key, forces_key, stress_key, virial_key, group_key)
    frames = read_frames(file, keys=keys, format=format, check=False)
    e0s = None if isolated_atoms is None else read_isolated_atoms(isolated_atoms, keys=keys)
    wanted = [r.strip() for r in require.split(",") if r.strip()]
    findings = validate_frames(frames, require=wanted, e0s=e0s)
    sound = None if fix is None else without_faults(frames, findings)
    if as_json:
        print_json(
            {
                "command": "data validate",
                "file": str(file),
                "frames": len(frames),
                "valid": not any(f.severity == "error" for f in findings),
                "findings": [f.as_dict() for f in findings],
                "fixed": None if sound is None else {"file": str(fix), "frames": len(sound)},
                "read": frames.report.as_dict(),
            }
        )
    else:
        _print(frames, findings)
    if fix is None or sound is None:
        _refuse(file, findings)
        return
    if not sound:
        raise InputError(f"{file}: no frame is left without faults, so that {fix} is not written")
    from mlip.datasets import write_frames

    write_frames(fix, sound)
    print(f"{fix}: {len(sound)} of {len(frames)} frames", file=sys.stderr if as_json else sys.stdout)
    _refuse(fix, [finding for finding in findings if not finding.frames])


def _print(frames: FrameList, findings: list[Finding]) -> None:
    print("\n".join(frames.report.lines()))
    if findings:
        rows = [[f.severity, f.check, str(f.count), f.example] for f in findings]
        print_table("", ["severity", "check", "frames", "first"], rows)
    else:
        print("nothing to remark")


def _refuse(file: Path, findings: list[Finding]) -> None:
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        first = errors[0]
        counts = f"{len(errors)} check" + ("s" if len(errors) > 1 else "")
        raise InputError(
            f"{file}: {counts} failed, the first: {first.check} ({first.count} frames; {first.example})"
        )
