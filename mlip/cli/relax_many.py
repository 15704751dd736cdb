"""`mlip relax … --out FILE.db`: any number of structures in batches, into one database."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from mlip.cli import EXIT_INTERRUPTED, EXIT_NOT_CONVERGED
from mlip.cli.calculator_choice import level_of_theory, model_digest
from mlip.cli.structure_files import (
    check_writable,
    forget_results,
    read_structures,
    say_left_out,
    structures_in,
)
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.search.batch_relax import Outcome
    from mlip.search.results_database import Origin, ResultsDatabase, Row

EXIT_TERMINATED: Final = 143
SHOWN: Final = 20
"""Structures without success that are listed on the terminal; the database has all."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """What computes: a model, and a cluster to do it on if there is one."""

    model: str
    device: str
    dtype: str
    scheduler: str | None


@dataclass(kw_only=True)
class _Run:
    """What is known while it goes on."""

    database: ResultsDatabase
    asked: list[Origin] = field(default_factory=list)
    starts: list[tuple[Origin, Atoms] | None] = field(default_factory=list)
    """Structures handed out, by place; None once they are back."""
    counts: Counter[str] = field(default_factory=Counter)


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def is_many(structures: Sequence[Path], out: Path | None) -> bool:
    """Whether this is a run into a database.

    Raises:
        InputError: Folders or databases are given without a database for the results.
    """
    if out is not None and out.suffix == ".db":
        return True
    for path in structures:
        if path.is_dir() or path.suffix == ".db":
            kind = "a folder" if path.is_dir() else "a database"
            raise InputError(f"{path}: is {kind}: name a database for the results, --out results.db")
    return False


def relax_into_database(
    structures: Sequence[Path], out: Path, where: Where, options: dict[str, Any], *, as_json: bool
) -> None:
    """Relax everything into `out`; raises `typer.Exit` unless all converged.

    Raises:
        InputError: An option or `out` cannot be used.
    """
    from mlip.search.batch_relax import check_batch
    from mlip.search.results_database import ResultsDatabase

    check_batch(**options)
    check_writable(out, inputs=[path for path in structures if path.is_file()])
    settings = _settings(where, options)
    files, others = _files(structures, out)
    database = ResultsDatabase(out, settings)
    try:
        say_left_out(others)
        with _terminable(), database, _progress(as_json) as show:
            run = _Run(database=database)
            for outcome in _outcomes(_pending(files, run, show), where, options):
                start = run.starts[outcome.place]
                assert start is not None
                run.starts[outcome.place] = None
                database.add(*start, outcome)
                run.counts[outcome.status] += 1
                show(run.counts)
    except KeyboardInterrupt as stop:
        print(
            f"interrupted: {len(database)} structures are in {out}; the same command goes on", file=sys.stderr
        )
        ended = EXIT_TERMINATED if isinstance(stop, _Terminated) else EXIT_INTERRUPTED
        raise typer.Exit(ended) from None
    _report(run, out, settings, as_json=as_json)
    if set(run.counts) - {"converged"}:
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _settings(where: Where, options: dict[str, Any]) -> dict[str, Any]:
    """What decides the results."""
    return {"model": where.model, "model_sha256": model_digest(where.model), "dtype": where.dtype, **options}


def _outcomes(structures: Iterator[Atoms], where: Where, options: dict[str, Any]) -> Iterator[Outcome]:
    if where.scheduler is not None:
        from mlip.search.batch_dask import relax_on_cluster

        return relax_on_cluster(
            structures, where.model, where.scheduler, device=where.device, dtype=where.dtype, **options
        )
    from mlip.calculators.batch import BatchCalculator
    from mlip.search.batch_relax import relax_many

    calculator = BatchCalculator(where.model, device=where.device, dtype=where.dtype)
    return relax_many(structures, calculator, **options)


def _files(structures: Sequence[Path], out: Path) -> tuple[list[Path], list[Path]]:
    """Files in the order given, those of folders by name, without `out` itself; and what else folders hold.

    Raises:
        InputError: A folder holds no structures.
        FileNotFoundError: Something is not there.
    """
    files, left_out = [], []
    for path in structures:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        found, others = structures_in(path, besides=out) if path.is_dir() else ([path], [])
        if not found:
            raise InputError(f"{path}: the folder holds no file whose name is that of a structure")
        files += found
        left_out += others
    return files, left_out


def _pending(files: list[Path], run: _Run, show: Callable[[Counter[str]], None]) -> Iterator[Atoms]:
    """Structures that still have to be relaxed; what cannot be read is noted as failed at once."""
    from mlip.search.batch_relax import Outcome
    from mlip.search.results_database import Origin, digest_of

    for path in files:
        try:
            for frame, atoms in enumerate(_frames(path)):
                origin = Origin(source=_name(path), frame=frame, digest=digest_of(atoms))
                run.asked.append(origin)
                known = run.database.find(origin)
                if known is not None and known.status != "failed":  # what failed may have had another cause
                    run.counts[known.status] += 1
                    continue
                run.starts.append((origin, atoms))
                yield atoms
        except (InputError, OSError) as error:
            origin = Origin(source=_name(path), frame=0, digest="unreadable")
            run.asked.append(origin)
            reason = str(error).removeprefix(f"{path}: ")
            known = run.database.find(origin)
            if known is None or known.message != reason:
                failed = Outcome(place=-1, status="failed", message=reason, result=None, novelty=None)
                run.database.add(origin, None, failed)
            run.counts["failed"] += 1
        show(run.counts)


def _name(path: Path) -> str:
    """As it was given; marked as a path where it looks like a number, which ASE refuses as a text."""
    try:
        float(str(path))
    except ValueError:
        return str(path)
    return f"./{path}"


def _frames(path: Path) -> Iterator[Atoms]:
    """Structures of a file without their results; databases are read row by row."""
    if path.suffix != ".db":
        yield from read_structures(path)
        return
    import sqlite3

    from ase.db import connect

    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    try:
        for row in connect(str(path), type="db").select():
            atoms = row.toatoms()
            forget_results(atoms)
            yield atoms
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: is no ASE database ({error})") from None


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: what has been reached is written."""

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Counter[str]], None]]:
    """A live line on stderr, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda counts: None
        return
    from rich.console import Console

    with Console(stderr=True).status("relaxing") as status:
        yield lambda counts: status.update(_counted(counts))


def _counted(counts: Counter[str]) -> str:
    order = ("converged", "not converged", "failed")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status] or status == order[0])


def _report(run: _Run, out: Path, settings: dict[str, Any], *, as_json: bool) -> None:
    rows = [row for row in map(run.database.find, run.asked) if row is not None]
    if as_json:
        import mlip

        report = {
            "command": "relax",
            "mlip_version": mlip.__version__,
            "level_of_theory": level_of_theory(settings["model"]),
            **settings,
            "output": str(out),
            "converged": run.counts["converged"] == len(rows),
            "counts": dict(run.counts),
            "structures": [_record(row) for row in rows],
        }
        print(json.dumps(report, indent=2))
        return
    frames = Counter(row.origin.source for row in rows)
    without = [row for row in rows if row.status != "converged"]
    for row in without[:SHOWN]:
        reached = "" if row.reached is None else f" (fmax {row.reached:.4f} eV/Å after {row.steps} steps)"
        reason = f": {row.message}" if row.message else ""
        print(f"{_place(row, frames)}: {row.status}{reached}{reason}")
    if len(without) > SHOWN:
        print(f"… and {len(without) - SHOWN} more")
    novel = [row for row in rows if row.novelty is not None and row.novelty > 1.0]
    for row in novel[:SHOWN]:
        unlike = f"unlike what the model was trained on, novelty {row.novelty:.2g}, where 1 is the boundary"
        print(f"{_place(row, frames)}: {unlike}")
    if len(novel) > SHOWN:
        print(f"… and {len(novel) - SHOWN} more with a `novelty` above 1")
    print(f"{_counted(run.counts)} -> {out}")


def _place(row: Row, frames: Counter[str]) -> str:
    """The file and, where it has several, the frame, counted from 0 as ASE does."""
    source = row.origin.source
    return f"{source}@{row.origin.frame}" if frames[source] > 1 else source


def _record(row: Row) -> dict[str, Any]:
    return {
        "file": row.origin.source,
        "frame": row.origin.frame,
        "row": row.id,
        "status": row.status,
        "message": row.message,
        "steps": row.steps,
        "energy_eV": row.energy,
        "fmax_eV_per_A": row.reached,
        "seconds": row.seconds,
        "novelty": row.novelty,
    }
