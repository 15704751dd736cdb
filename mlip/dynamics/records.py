"""Trajectory and table of a run: appended to as it goes, cut back to a checkpoint when it resumes."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

TRAJECTORY_SUFFIXES: Final = (".xyz", ".extxyz")

COLUMNS: Final = (
    "step",
    "time_fs",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "conserved_eV",
    "temperature_K",
    "pressure_GPa",
    "volume_A3",
)
"""Of the table; a cell is empty where there is no such number."""


@dataclass(frozen=True, kw_only=True)
class DynamicsFiles:
    """The four files of a run, side by side: `X.xyz`, `X.csv`, `X.png`, `X.checkpoint`."""

    trajectory: Path

    @property
    def table(self) -> Path:
        """Thermodynamics, CSV."""
        return self.trajectory.with_suffix(".csv")

    @property
    def picture(self) -> Path:
        """Energy, temperature and pressure over time."""
        return self.trajectory.with_suffix(".png")

    @property
    def checkpoint(self) -> Path:
        """State to resume from."""
        return self.trajectory.with_suffix(".checkpoint")

    def check(self) -> None:
        """See that the trajectory's name and folder will do.

        Raises:
            InputError: They will not.
        """
        if self.trajectory.suffix not in TRAJECTORY_SUFFIXES:
            raise InputError(
                f"the trajectory {self.trajectory} has an unknown ending: "
                f"use {' or '.join(TRAJECTORY_SUFFIXES)}"
            )
        folder = self.trajectory.absolute().parent
        if not folder.is_dir():
            raise InputError(f"the folder of the trajectory, {folder}, does not exist: create it first")

    def all(self) -> tuple[Path, ...]:
        """The four."""
        return (self.trajectory, self.table, self.checkpoint, self.picture)

    def present(self) -> list[Path]:
        """Those that exist."""
        return [path for path in self.all() if path.exists()]


class Recorder:
    """Appends rows and frames."""

    def __init__(self, files: DynamicsFiles, *, sizes: dict[str, int] | None = None) -> None:
        """Start two files, or with `sizes` cut those of an interrupted run back to what they held.

        Raises:
            InputError: A file is missing or shorter than it was.
        """
        self._files = files
        paths = {"trajectory": files.trajectory, "table": files.table}
        for role, path in paths.items():
            size = 0 if sizes is None else sizes[role]
            if sizes is not None and (not path.is_file() or path.stat().st_size < size):
                raise InputError(
                    f"{path} no longer holds what it did at the checkpoint ({size} bytes): restore it, "
                    "or start anew with --force"
                )
            with path.open("ab") as file:
                file.truncate(size)
        self._trajectory: TextIO = files.trajectory.open("a", encoding="utf-8", newline="\n")
        self._table: TextIO = files.table.open("a", encoding="utf-8", newline="\n")
        if sizes is None:
            self._table.write(",".join(COLUMNS) + "\n")

    def append(self, row: dict[str, float | None], frame: Atoms) -> None:
        """Add one row and one frame; both are in the files when this returns."""
        from ase.io.extxyz import write_xyz

        write_xyz(self._trajectory, [frame])
        self._table.write(",".join(_cell(row[name]) for name in COLUMNS) + "\n")
        self._trajectory.flush()
        self._table.flush()

    def sizes(self) -> dict[str, int]:
        """Bytes of both files, forced to the disk: what a checkpoint refers to must outlive a power cut."""
        held = {"trajectory": self._trajectory, "table": self._table}
        for file in held.values():
            file.flush()
            os.fsync(file.fileno())
        return {role: os.fstat(file.fileno()).st_size for role, file in held.items()}

    def close(self) -> None:
        """Close both."""
        self._trajectory.close()
        self._table.close()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The table's columns by name; NaN where a cell is empty.

    Raises:
        InputError: It is no such table.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise InputError(f"{path} is not a table of `mlip md`")
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows[1:]])
    values = values.reshape(-1, len(COLUMNS))
    return {name: values[:, column] for column, name in enumerate(COLUMNS)}
