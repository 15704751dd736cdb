"""Results of many relaxations in one ASE database, written as they come and taken up again after an
interruption.

Each structure is one row, which `ase db FILE -c id,source,frame,status,steps,energy,seconds` lists: the
relaxed structure with energy, forces and stress, and as key-value pairs

    source, frame   where it came from; frames are counted from 0
    status          converged, not_converged or failed
    message         why it failed
    steps, seconds  steps taken, its share of the wall time
    initial_energy  eV, at the start
    reached         largest force reached, eV/Å (with the cell, of its generalised forces, too)
    optimizer       as used
    novelty         of the atom least like those of the training; 1 is the boundary
    digest          of the starting structure

Rows that failed hold the starting structure, or no atoms where there was none; the same command tries them
again, as the cause may have been another than the structure. The database's metadata say with which model
and options it was made.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.electrons import charge_of, spin_of
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from ase import Atoms

    from mlip.search.batch_relax import Outcome

KEY: Final = "mlip_relax"
"""Of the database's metadata."""

BETWEEN_COMMITS: Final = 0.5
"""Seconds for which results may wait to be written together."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a structure came from: a file as it was named, the frame in it, and `digest_of`."""

    source: str
    frame: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the database says of one structure."""

    id: int
    origin: Origin
    status: str
    message: str
    steps: int | None
    energy: float | None
    reached: float | None
    seconds: float | None
    novelty: float | None


def digest_of(atoms: Atoms) -> str:
    """Fingerprint of elements, positions, cell, constraints, charge and spin."""
    from ase.io.jsonio import encode

    from mlip.search.relax import fixed_atoms

    digest = hashlib.sha256()
    fixed = fixed_atoms(atoms)
    for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, fixed or []):
        digest.update(np.ascontiguousarray(part).tobytes() + b"|")
    if fixed is None:
        digest.update(encode([constraint.todict() for constraint in atoms.constraints]).encode())
    electrons = _electrons(atoms)
    if electrons != (0, 1):
        digest.update(repr(electrons).encode())
    return f"x{digest.hexdigest()[:16]}"  # a letter first: ASE refuses values that look like numbers


def _electrons(atoms: Atoms) -> tuple[int, int] | str:
    """Charge and multiplicity, those that are not said taken for 0 and 1 as models do; why not, if they
    cannot be understood."""
    try:
        return charge_of(atoms) or 0, spin_of(atoms) or 1
    except InputError as error:
        return str(error)


def check_settings(path: Path, held: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """See that results which are there were made with the settings that more are to be made with.

    Raises:
        InputError: They were not.
    """
    if held != settings:
        name = next(key for key in {**held, **settings} if held.get(key) != settings.get(key))
        raise InputError(
            f"{path}: holds results for {name} = {held.get(name)}, but now it is {settings.get(name)}: "
            "repeat the command that made it, or choose another with --out"
        )


class ResultsDatabase:
    """An open results database; use as a context manager, which writes what still waits."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Make the file, or go on with it.

        Args:
            path: Ends in `.db`.
            settings: Model and options, as JSON values.

        Raises:
            InputError: The file is something else, or was made with other settings.
        """
        from ase.db import connect

        self.path = path
        if not path.exists() or path.stat().st_size == 0:
            _make(path, settings)
        try:
            self._database: Any = connect(str(path), type="db", use_lock_file=False)
            held = self._database.metadata.get(KEY)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: is no ASE database ({error}): choose another with --out") from None
        if held is None:
            raise InputError(f"{path}: was not made by `mlip relax`: choose another with --out")
        check_settings(path, held, settings)
        self._rows = self._read()
        self._waiting: list[tuple[Origin, Atoms | None, Outcome]] = []
        self._written = time.monotonic()

    def __enter__(self) -> ResultsDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # it may have happened while something was written, or just after
            from ase.db import connect

            self._database = connect(str(self.path), type="db", use_lock_file=False)
            self._rows = self._read()
        self.flush()

    def __len__(self) -> int:
        """Structures that are written."""
        return len(self._rows)

    def _read(self) -> dict[tuple[str, int], Row]:
        rows = map(_row, self._database.select())
        return {(row.origin.source, row.origin.frame): row for row in rows}

    def find(self, origin: Origin) -> Row | None:
        """The row of a structure; None where there is none or the structure has changed."""
        row = self._rows.get((origin.source, origin.frame))
        return row if row is not None and row.origin == origin else None

    def add(self, origin: Origin, start: Atoms | None, outcome: Outcome) -> None:
        """Take a result in; it is written within about `BETWEEN_COMMITS` seconds or with the next one."""
        self._waiting.append((origin, start, outcome))
        if time.monotonic() - self._written > BETWEEN_COMMITS:
            self.flush()

    def flush(self) -> None:
        """Write what waits, all of it or, when interrupted, nothing."""
        if self._waiting:
            with self._database:
                for origin, start, outcome in self._waiting:
                    row = self._write(origin, start, outcome)
                    self._rows[(origin.source, origin.frame)] = row
            self._waiting = []
        self._written = time.monotonic()

    def _write(self, origin: Origin, start: Atoms | None, outcome: Outcome) -> Row:
        from ase import Atoms

        result = outcome.result
        pairs: dict[str, Any] = {
            "source": origin.source,
            "frame": origin.frame,
            "digest": origin.digest,
            "status": outcome.status.replace(" ", "_"),
        }
        if outcome.message:
            pairs["message"] = outcome.message
        if outcome.novelty is not None:
            pairs["novelty"] = outcome.novelty
        if result is not None:
            pairs.update(
                steps=result.steps,
                seconds=round(result.seconds, 4),
                initial_energy=result.initial_energy,
                reached=result.fmax,
                optimizer=result.optimizer,
            )
        old = self._rows.get((origin.source, origin.frame))
        atoms = result.atoms if result is not None else start if start is not None else Atoms()
        number = self._database.write(atoms, id=None if old is None else old.id, **pairs)
        return Row(
            id=number,
            origin=origin,
            status=outcome.status,
            message=outcome.message,
            steps=None if result is None else result.steps,
            energy=None if result is None else result.energy,
            reached=None if result is None else result.fmax,
            seconds=None if result is None else round(result.seconds, 4),
            novelty=outcome.novelty,
        )


def _make(path: Path, settings: dict[str, Any]) -> None:
    """An empty database that knows its settings, whole or not at all."""
    from ase.db import connect

    temporary = path.with_name(f".{os.getpid():x}-{path.name}")
    try:
        connect(str(temporary), type="db", use_lock_file=False).metadata = {KEY: settings}
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _row(row: Any) -> Row:
    origin = Origin(source=row.source, frame=int(row.frame), digest=row.get("digest", ""))
    return Row(
        id=row.id,
        origin=origin,
        status=row.status.replace("_", " "),
        message=row.get("message", ""),
        steps=row.get("steps"),
        energy=row.get("energy"),
        reached=row.get("reached"),
        seconds=row.get("seconds"),
        novelty=row.get("novelty"),
    )
