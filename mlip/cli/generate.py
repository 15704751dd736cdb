"""`mlip data generate`: labelled frames of molecules, from SMILES or structure files."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.datasets.generation.labelling import Labeller, MakeLabeller, Particles
    from mlip.datasets.generation.recipes import Amounts, Source
    from mlip.datasets.generation.shards import Progress

SMILES_ENDINGS: Final = (".smi", ".smiles", ".txt")


def generate(
    molecules: Annotated[
        list[Path],
        typer.Argument(metavar="MOLECULES", help="Lists of SMILES (.smi, .txt) or structure files."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes; again to resume.")],
    calculator: Annotated[
        str, typer.Option(help="tblite (GFN2-xTB), a model file, or the name of a bundled model.")
    ] = "tblite",
    paths: Annotated[
        bool, typer.Option("--paths", help="Structure files hold reactant and product, atoms in one order.")
    ] = False,
    dimers: Annotated[int, typer.Option(help="Random pairs of the molecules given as SMILES.", min=0)] = 0,
    conformers: Annotated[int, typer.Option(help="Relaxed, of each molecule.", min=1)] = 2,
    relaxation: Annotated[int, typer.Option(help="Frames kept of a relaxation.", min=2)] = 8,
    rattled: Annotated[int, typer.Option(help="Frames with noise of 0.02 to 0.25 Å.", min=0)] = 3,
    stretched: Annotated[int, typer.Option(help="Frames with one bond stretched or short.", min=0)] = 4,
    twisted: Annotated[int, typer.Option(help="Frames turned about a bond.", min=0)] = 2,
    thermal: Annotated[int, typer.Option(help="Harmonic samples, 150 to 1500 K.", min=0)] = 5,
    dynamics: Annotated[int, typer.Option(help="Frames of dynamics, 10 fs apart.", min=0)] = 0,
    pushes: Annotated[int, typer.Option(help="Relaxations that make or break a bond.", min=0)] = 1,
    shifts: Annotated[int, typer.Option(help="Hydrogen shifts, with paths; SMILES only.", min=0)] = 1,
    images: Annotated[int, typer.Option(help="Images of a path.", min=1)] = 5,
    hessians: Annotated[int, typer.Option(help="Hessians: of a minimum, then of others.", min=0)] = 0,
    valid: Annotated[float, typer.Option(help="Share of scaffolds in valid.h5.", min=0.0, max=1.0)] = 0.0,
    test: Annotated[float, typer.Option(help="Share of scaffolds in test.h5.", min=0.0, max=1.0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    licence: Annotated[str, typer.Option(help="Kept in the files.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make labelled frames of molecules: relaxations, distorted and reacting geometries, dimers, Hessians.

    Frames are made in shards under FOLDER/shards; stopped at any moment, the same command goes on. At the end
    they are gathered in FOLDER/frames.h5, or with --valid and --test in train.h5, valid.h5 and test.h5,
    divided by Bemis–Murcko scaffold.

    Exits 0 when everything is made, 2 when something given cannot be used, 130 or 143 when interrupted.
    """
    from mlip.cli.interruption import SIGNALLED, Interruption
    from mlip.datasets.generation import shards
    from mlip.datasets.generation.pack import pack
    from mlip.datasets.generation.recipes import Amounts

    amounts = Amounts(
        conformers=conformers, relaxation=relaxation, rattled=rattled, stretched=stretched, twisted=twisted,
        thermal=thermal, dynamics=dynamics, pushes=pushes, shifts=shifts, images=images, hessians=hessians,
    )  # fmt: skip
    make_labeller, theory = _labels(calculator)
    sources = _sources(molecules, amounts, paths=paths, dimers=dimers, seed=seed)
    sources = _divided(sources, valid=valid, test=test, seed=seed)
    plan = shards.make_plan(
        sources, seed=seed, level_of_theory=theory, licence=licence, about="mlip data generate"
    )
    _require_known(calculator, sources)
    shards.write_plan(out, plan)
    with Interruption() as interruption, _progress() as show:
        done = shards.run(
            out, make_labeller, workers=workers, on_progress=show, should_stop=interruption
        )  # fmt: skip
    if not done:
        print("stopped: go on with the same command", file=sys.stderr)
        raise typer.Exit(SIGNALLED + interruption.number)
    summary = pack(out)
    if as_json:
        print(json.dumps({"command": "data generate", "folder": str(out), **summary}, ensure_ascii=False))
    else:
        print("\n".join(_lines(out, summary)))


def _labels(calculator: str) -> tuple[MakeLabeller, str]:
    """The labeller called so, and its level of theory."""
    from mlip.datasets.generation.labelling import TBLite

    if calculator == "tblite":
        return TBLite, TBLite.level_of_theory
    from mlip.checkpoint import resolve_model
    from mlip.cli.calculator_choice import model_digest

    path = resolve_model(calculator)
    return functools.partial(_model_labels, path), f"model {path.name} ({model_digest(calculator)})"


def _model_labels(path: Path, particles: Particles) -> Labeller:
    from mlip.datasets.generation.labelling import ASELabels

    return ASELabels(particles, _model(path))


@functools.lru_cache(maxsize=1)
def _model(path: Path) -> Any:
    from mlip.calculators import MLIPCalculator

    return MLIPCalculator(path)


def _require_known(calculator: str, sources: list[Source]) -> None:
    """Fail now, not in a worker, where a package is missing or an element is unknown."""
    import numpy as np

    from mlip.datasets.generation.labelling import LabelError, Particles, TBLite
    from mlip.datasets.generation.recipes import elements_of

    numbers = np.array(sorted({z for s in sources for z in elements_of(s)}))
    if calculator != "tblite":
        import torch

        from mlip.checkpoint import resolve_model

        _model(resolve_model(calculator)).potential.check_species(torch.from_numpy(numbers))
        return
    for number in numbers:
        label = TBLite(Particles(np.array([number]), spin=1 + number % 2))
        with suppress(LabelError):  # lone atoms may be hard, the element is known all the same
            label(np.zeros((1, 3)))


def _sources(files: list[Path], amounts: Amounts, *, paths: bool, dimers: int, seed: int) -> list[Source]:
    """Everything in the files, and the dimers; a file or SMILES that is there twice counts once."""
    from mlip.datasets.generation.recipes import Source

    out: list[Source] = []
    smiles: dict[str, None] = {}
    files = list({path.resolve(): path for path in files}.values())
    names = Counter(path.name for path in files)
    for path in files:
        if path.suffix.lower() in SMILES_ENDINGS:
            smiles.update(dict.fromkeys(_smiles(path)))
        else:
            name = path.name if names[path.name] == 1 else path.as_posix()
            out += _structures(path, name, amounts, paths=paths)
    if dimers and not smiles:
        raise InputError(f"`--dimers` is {dimers}, but no molecule is given as SMILES to make them of")
    for name in [*smiles, *_pairs(list(smiles), dimers, seed)]:
        out.append(Source(name=name, smiles=name, group=name, amounts=amounts))
    return out


def _smiles(path: Path) -> Iterator[str]:
    """Canonical SMILES of a list: the first word of every line but empty ones and those that begin with #."""
    from mlip.datasets.generation.force_field import parse

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            mol = parse(words[0])
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        from rdkit import Chem

        yield str(Chem.MolToSmiles(mol))


def _structures(path: Path, name: str, amounts: Amounts, *, paths: bool) -> Iterator[Source]:
    from mlip.cli.structure_files import read_structures
    from mlip.datasets.generation.recipes import Source

    frames = read_structures(path)
    for k, atoms in enumerate(frames):
        if atoms.pbc.any():
            raise InputError(f"{path}: structure {k + 1} is periodic, but frames are made of molecules alone")
    try:
        structures = [_as_json(atoms) for atoms in frames]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not paths:
        for k, structure in enumerate(structures):
            own = name if len(frames) == 1 else f"{name}:{k}"
            yield Source(name=own, group=own, structures=[structure], amounts=amounts)
        return
    if len(frames) != 2 or frames[0].numbers.tolist() != frames[1].numbers.tolist():
        raise InputError(
            f"{path}: with --paths a file must hold two structures, reactant and product, of the same atoms "
            f"in the same order; this one holds {', '.join(str(f.symbols) for f in frames[:3])}"
        )
    yield Source(name=name, group=name, structures=structures, amounts=amounts)


def _as_json(atoms: Atoms) -> dict[str, Any]:
    from mlip.calculators.electrons import charge_of, multiplicity_of

    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "charge": charge_of(atoms) or 0,
        "spin": multiplicity_of(atoms),
    }


def _pairs(smiles: list[str], count: int, seed: int) -> list[str]:
    """Random pairs, also of two alike, each once."""
    import random

    possible = len(smiles) * (len(smiles) + 1) // 2
    if count > possible:
        raise InputError(f"`--dimers` is {count}, but {len(smiles)} molecules make {possible} pairs only")
    rng, out = random.Random(seed), set[str]()
    while len(out) < count:
        out.add(".".join(sorted(rng.choices(smiles, k=2))))
    return sorted(out)


def _divided(sources: list[Source], *, valid: float, test: float, seed: int) -> list[Source]:
    """Sources with group and split; pairs of a molecule to validate and one to test on are left out."""
    if not valid and not test:
        return sources
    if valid + test >= 1:
        raise InputError(
            f"`--valid` and `--test` are {valid} and {test} but must leave something to train on"
        )
    from dataclasses import replace

    from mlip.datasets.generation.scaffolds import scaffold_of, split_of

    out = []
    for source in sources:
        if source.structures:
            raise InputError(f"{source.name}: --valid and --test divide by scaffold, which needs SMILES")
        split = split_of(source.smiles, {"valid": valid, "test": test}, seed=seed)
        group = " + ".join(sorted(scaffold_of(part) for part in source.smiles.split(".")))
        if split is not None:
            out.append(replace(source, group=group, split=split))
    for part, share in (("valid", valid), ("test", test)):
        if share and all(source.split != part for source in out):
            raise InputError(
                f"`--{part}` is {share:g}, but none of {len(sources)} molecules falls to it (a hash decides "
                "for each scaffold; what has no rings and up to three heavy atoms is always trained on): "
                "give more molecules, or leave it out and divide afterwards with `mlip data split`"
            )
    return out


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A live line on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        begin, first = time.monotonic(), list[int]()

        def show(progress: Progress) -> None:
            first.append(progress.done - 1)
            left = (progress.total - progress.done) * (time.monotonic() - begin) / (progress.done - first[0])
            made = progress.counts["frames"]
            status.update(f"{progress.done} of {progress.total} shards, {made} frames, {left:.0f} s left")

        yield show


def _lines(out: Path, summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, part in summary["parts"].items():
        kinds = ", ".join(f"{n} {kind}" for kind, n in part["frames_by_kind"].items())
        lines.append(f"{out / name}.h5: {part['frames']} frames of {part['sources']} sources ({kinds})")
        if part["hessians"]:
            lines.append(f"  {part['hessians']} Hessians")
        if part["discarded"]:
            dropped = ", ".join(f"{n} {why}" for why, n in part["discarded"].items() if n)
            lines.append(f"  discarded: {dropped or 'none'}")
    return lines
