"""Logs of a run: a CSV table, TensorBoard events, and a line on the terminal."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any


class CsvLog:
    """``log.csv``: one row per epoch, readable at any time.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep_until(self, epoch: int) -> None:
        """Drop the rows of later epochs, which a resumed run is going to do again."""
        rows = [row for row in self.read() if row["epoch"] <= epoch]
        if rows:
            self._write(rows)
        else:
            self._path.unlink(missing_ok=True)

    def append(self, row: dict[str, float]) -> None:
        """Add a row; new columns, which only a first validation brings, rewrite the file."""
        header = self._header()
        if header is None or set(row) - set(header):
            self._write([*self.read(), row])
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, header).writerow(_text(row))

    def read(self) -> list[dict[str, float]]:
        """All rows; cells without a value are left out."""
        if not self._path.is_file():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

    def _header(self) -> list[str] | None:
        if not self._path.is_file():
            return None
        with self._path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), None)

    def _write(self, rows: list[dict[str, float]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        temporary = self._path.with_name(self._path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(_text(row) for row in rows)
        os.replace(temporary, self._path)


def _text(row: dict[str, float]) -> dict[str, str]:
    return {key: str(int(v)) if key in ("epoch", "step") else f"{v:.8g}" for key, v in row.items()}


class TensorBoardLog:
    """The same numbers as TensorBoard events.

    Args:
        writer: A ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def open(cls, folder: Path, *, first_step: int) -> TensorBoardLog | None:
        """Open the log, or return None where TensorBoard is not installed.

        Args:
            folder: For the event files.
            first_step: First epoch that will be written; later ones already there are hidden.
        """
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return cls(SummaryWriter(str(folder), purge_step=first_step, flush_secs=30))

    def append(self, row: dict[str, float]) -> None:
        """Add the numbers of an epoch."""
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key.replace("_", "/", 1), value, int(row["epoch"]))

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()


class ProgressLine:
    """Progress on stderr: a line per epoch, and on a terminal one that moves between them.

    Args:
        max_epochs: Epochs of the run.
        every: Epochs between two lasting lines; improvements in between only show on the moving line.
    """

    INTERVAL = 0.25

    def __init__(self, max_epochs: int, *, every: int = 1) -> None:
        self._max_epochs = max_epochs
        self._every = every
        self._tty = sys.stderr.isatty()
        self._errors = ""
        self._next = 0.0
        self._started = time.monotonic()
        self._done_before = 0.0
        self._open = False

    def start(self, epoch: int) -> None:
        """Start the clock at an epoch."""
        self._started, self._done_before = time.monotonic(), float(epoch)

    def tick(self, epoch: int, batch: int, batches: int) -> None:
        """After each step; does nothing most of the time."""
        if not self._tty or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.INTERVAL
        done = epoch + batch / batches
        where = f"epoch {epoch + 1}/{self._max_epochs}  step {batch}/{batches}"
        text = f"{where}{self._errors}  {self._left(done)} left"
        sys.stderr.write("\r\x1b[K" + text[: max(20, _width() - 1)])
        sys.stderr.flush()
        self._open = True

    def epoch(self, row: dict[str, float], *, best: bool) -> None:
        """After each epoch."""
        source = "valid" if "valid_forces_rmse" in row or "valid_energy_rmse" in row else "train"
        parts = [f"E {1000 * row[f'{source}_energy_per_atom_rmse']:.3g} meV/atom"]
        if f"{source}_forces_rmse" in row:
            parts.append(f"F {1000 * row[f'{source}_forces_rmse']:.4g} meV/Å")
        if f"{source}_stress_rmse" in row:
            parts.append(f"S {1000 * row[f'{source}_stress_rmse']:.3g} meV/Å³")
        if f"{source}_hessian_mae" in row:
            parts.append(f"H MAE {1000 * row[f'{source}_hessian_mae']:.4g} meV/Å²")
        if "relax_converged" in row:
            parts.append(f"relaxed {100 * row['relax_converged']:.0f} %")
        self._errors = f"  {source} " + ", ".join(parts)
        number = int(row["epoch"])
        if number % self._every and number != self._max_epochs:
            return
        self.close()
        mark = " *" if best else ""
        left = self._left(float(number))
        print(
            f"epoch {number}/{self._max_epochs}{self._errors}  {row['seconds']:.3g} s  {left} left{mark}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Wipe the moving line."""
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False

    def _left(self, done: float) -> str:
        made = done - self._done_before
        if made <= 0:
            return "?"
        seconds = (time.monotonic() - self._started) / made * (self._max_epochs - done)
        hours, rest = divmod(int(seconds), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _width() -> int:
    """Columns of the terminal behind stderr."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80
