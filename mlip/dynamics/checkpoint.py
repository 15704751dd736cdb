"""The state of a simulation in one file: exact to the last bit, written atomically, never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

FORMAT: Final = "polyad-dynamics"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        step: Steps done.
        run: What the run was started with: plain values by name, which must not change.
        arrays: The integrator's state (`Integrator.state`).
        random: State of the random generator.
        sizes: Bytes of each output file at this step, by its role.
        reference: Potential energy (eV) and temperature (K) that the watch compares with.
    """

    step: int
    run: dict[str, Any]
    arrays: dict[str, np.ndarray]
    random: dict[str, Any]
    sizes: dict[str, int]
    reference: tuple[float, float]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write under a temporary name, force it to the disk, rename."""
    from safetensors.numpy import save

    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": checkpoint.step,
        "run": checkpoint.run,
        "random": checkpoint.random,
        "sizes": checkpoint.sizes,
        "reference": checkpoint.reference,
    }
    arrays = {name: np.require(value, requirements="C") for name, value in checkpoint.arrays.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(save(arrays, metadata={"polyad": json.dumps(header)}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        InputError: The file is missing, damaged, or no such checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(
            f"nothing to resume: {path} does not exist; start without --resume, "
            "or give --out as in the interrupted run"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["polyad"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT or header["format_version"] != FORMAT_VERSION:
            raise ValueError
        energy, temperature = header["reference"]
        return Checkpoint(
            step=int(header["step"]),
            run=dict(header["run"]),
            arrays=arrays,
            random=dict(header["random"]),
            sizes={str(role): int(size) for role, size in header["sizes"].items()},
            reference=(float(energy), float(temperature)),
        )
    except (SafetensorError, LookupError, ValueError, TypeError):
        raise InputError(
            f"{path} is not a readable checkpoint of `mlip md`: restore it, or start anew with --force"
        ) from None


def check_same_run(path: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """See that a run goes on as it began.

    Raises:
        InputError: It would not; names what differs.
    """
    for name in {**stored, **asked}:
        was, now = stored.get(name), asked.get(name)
        if was != now:
            raise InputError(
                f"{path}: the run was started with `{name}` {was}, now it is {now}: "
                "resume with the same, or start another run with another --out"
            )


def fingerprint(atoms: Atoms) -> str:
    """Hash of all that a run starts from: elements, masses, positions, velocities, cell, constraints."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.get_masses(), atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(atoms.get_momenta().tobytes())
    digest.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return digest.hexdigest()[:16]
