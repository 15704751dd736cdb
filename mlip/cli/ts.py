"""`mlip ts`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli import EXIT_INPUT, EXIT_NOT_CONVERGED
from mlip.cli.calculator_choice import DEFAULT_MODEL, check_computable, choose_calculator
from mlip.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

    from mlip.cli.ts_inputs import Task
    from mlip.search.reaction import Reaction


def ts(
    structures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[REACTANT PRODUCT | PAIR | FOLDER]", help="Files that ASE reads; see above."),
    ] = None,
    guess: Annotated[
        Path | None, typer.Option(metavar="STRUCT", help="Start from a guess of the saddle instead.")
    ] = None,
    images: Annotated[int, typer.Option(help="Of the elastic band, ends included.")] = 11,
    fmax: Annotated[float, typer.Option(help="Converged when no force is larger than this, eV/Å.")] = 0.01,
    temperature: Annotated[float, typer.Option(metavar="K", help="Of the Gibbs energies, K.")] = 298.15,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Results; default NAME-ts, of the inputs, beside the first."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a bundled model, or a model file.")] = DEFAULT_MODEL,
    calculator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of a model: tblite (GFN2-xTB).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
) -> None:
    """Transition states: from reactant and product, or a guess, to a verified saddle and its barrier.

    Give REACTANT and PRODUCT, one file with both as two frames, or a folder of such files (or of pairs
    NAME-reactant, NAME-product), which are searched together. The atoms of the product are put into the
    reactant's order where they are not. Both are relaxed; a climbing-image band between them leads to a
    saddle, which is refined with its Hessian; the path down from it is followed on both sides, and the
    verdict says whether it connects the two, or what it connects instead.

    DIR gets result.json, saddle.xyz, reactant.xyz, product.xyz, path.extxyz and profile.png, for a folder
    in a subfolder for each reaction. Searches that DIR already holds the results of are not done again, and
    results of another method are never replaced.

    Exits 0 when every saddle connects what it should, 3 when one does not (what was found is written), 2 when
    something given cannot be used; in a folder that is said first, and the other reactions are searched.
    """
    from mlip.cli.ts_inputs import plan
    from mlip.search.pursuit import Demands
    from mlip.search.thermochemistry import check_thermochemistry

    _need_matplotlib()
    demands = Demands(images=images, fmax=fmax)
    tasks = plan(structures or [], guess)
    for task in tasks:
        if task.problem is None:
            check_thermochemistry(task.structures[0], temperature=temperature)
    folder = _folder(out, structures or [], guess, tasks)
    engine, chosen = choose_calculator(model, calculator, device=device, dtype=dtype)
    tasks = _checked(tasks, engine)
    said = ("model_sha256", "calculator", "dtype")  # what decides results: not the device
    settings = {name: chosen[name] for name in said}
    settings |= {"images": demands.images, "fmax": demands.fmax, "temperature": temperature}
    started = time.perf_counter()
    several = len(tasks) > 1 or any(path.is_dir() for path in structures or [])
    places = [folder / task.name if several else folder for task in tasks]
    reports = _search(tasks, engine, places, settings, quiet=as_json)
    if as_json:
        import mlip

        print(json.dumps(
            {"command": "ts", "mlip_version": mlip.__version__, **chosen, **settings, "out": str(folder),
             "reached": sum(report["reached"] for report in reports), "reactions": reports,
             "seconds": round(time.perf_counter() - started, 2)}, indent=2,
        ))  # fmt: skip
    elif len(reports) > 1:
        reached = sum(report["reached"] for report in reports)
        print(f"{reached} of {len(reports)} saddles connect what they should -> {folder}")
    if any(task.problem for task in tasks):
        raise typer.Exit(EXIT_INPUT)
    if not all(report["reached"] for report in reports):
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _search(
    tasks: list[Task], engine: BaseCalculator, places: list[Path], settings: dict[str, Any], *, quiet: bool
) -> list[dict[str, Any]]:
    """Reports of all reactions, in order; each is written as its search ends."""
    from mlip.cli.ts_output import earlier, key, lines, refused, write
    from mlip.search.transition_state import find_from_guesses, find_transition_states

    keys = [key(task, settings) for task in tasks]
    reports: dict[int, dict[str, Any]] = {}

    def note(number: int, report: dict[str, Any], *, reused: bool) -> None:
        reports[number] = report | {"reused": reused, "folder": str(places[number])}
        if not quiet:
            print("\n".join(lines(report)) + f"\n  -> {places[number]}{' (from before)' if reused else ''}")

    for number, task in enumerate(tasks):
        if task.problem is not None:
            reports[number] = refused(task) | {"reused": False, "folder": None}
            print(f"{task.name}: not searched: {task.problem}", file=sys.stderr)
            continue
        found = earlier(places[number], keys[number], settings)
        if found is not None:
            note(number, found, reused=True)
    left = [number for number in range(len(tasks)) if number not in reports]
    if left:
        _prepare(places[left[0]])
    with _progress(len(left)) as show:

        def done(which: int, reaction: Reaction) -> None:
            number = left[which]
            report = write(tasks[number], reaction, places[number], wanted=keys[number], settings=settings)
            note(number, report, reused=False)
            show(len(reports))

        chosen = [tasks[number].structures for number in left]
        if any(len(ends) == 1 for ends in chosen):
            find_from_guesses([ends[0] for ends in chosen], engine, fmax=settings["fmax"], done=done)
        else:
            pairs = [(ends[0], ends[1]) for ends in chosen]
            find_transition_states(pairs, engine, images=settings["images"], fmax=settings["fmax"], done=done)
    return [reports[number] for number in range(len(tasks))]


def _need_matplotlib() -> None:
    """Before anything is computed, see that the profile can be drawn at the end."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputError(
            'the energy profile needs the package "matplotlib", not installed: pip install "polyad[train]"'
        )


def _folder(out: Path | None, structures: list[Path], guess: Path | None, tasks: list[Task]) -> Path:
    """Where results go.

    Raises:
        InputError: The folder above it does not exist, or it is a file or holds the inputs.
    """
    first = guess if guess is not None else structures[0]
    if first.name in ("", ".."):
        first = first.resolve()
    name = first.name if first.is_dir() else first.stem if guess is not None else tasks[0].name
    folder = out if out is not None else first.with_name(f"{name}-ts")
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"{folder}: is a file, but must be a folder for the results: choose another with --out"
        )
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.absolute().parent} does not exist: create it first")
    homes = [path if path.is_dir() else path.parent for path in (*structures, *([guess] if guess else []))]
    if folder.is_dir() and any(folder.samefile(home) for home in homes):
        raise InputError(
            f"{folder}: holds the inputs, which are never overwritten: choose another with --out"
        )
    return folder


def _prepare(folder: Path) -> None:
    import os

    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written to: choose another folder with --out")


def _checked(tasks: list[Task], engine: BaseCalculator) -> list[Task]:
    """Tasks whose structures can be evaluated; those of several that cannot have a problem.

    Raises:
        InputError: The only one cannot be evaluated, or none of several.
    """
    from mlip.search.relax import check_structure

    found = []
    for task in tasks:
        for number, atoms in enumerate(task.structures):
            try:
                check_structure(atoms, cell=False)
                check_computable(atoms, engine)
            except InputError as error:
                task = replace(task, structures=(), problem=f"{task.where(number)}: {error}")
                break
        found.append(task)
    problems = [task.problem for task in found if task.problem is not None]
    if len(problems) == len(found):
        more = "" if len(problems) == 1 else f"; nor can the other {len(problems) - 1} be searched"
        raise InputError(f"{problems[0]}{more}")
    return found


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A live line on stderr, on a terminal only."""
    if not sys.stderr.isatty() or total == 0:
        yield lambda number: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"searching {total} transition states") as status:
        yield lambda number: status.update(f"searching transition states: {number} done of {total}")
