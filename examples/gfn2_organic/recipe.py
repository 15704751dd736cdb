"""The model `gfn2-organic`, from nothing: data, training, evaluation, model card.

    python examples/gfn2_organic/recipe.py all --data DATA --run RUN [--workers N] [--scale 0.01]

or step by step, `label`, `pack`, `train`, `explore`, `hessians`, `refine`, `head`, `evaluate`, `card` in the
place of `all`.
`label` lists the molecules, in two waves, and labels them with GFN2-xTB in shards of 20; stopped at any
moment, the same command goes on. `pack` gathers the shards that are there, also while `label` runs.
`train` trains on energies and forces, `explore` labels reactions that the trained model finds,
`hessians` more second derivatives. `refine` trains on, with all frames; `head` adds the head for Hessians
and leaves the rest as it is. Needs `pip install ".[train,labels]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per process: molecules are small

from rdkit import Chem

from mlip.datasets.generation.constitutions import enumerate_small, sample_larger
from mlip.datasets.generation.labelling import TBLite
from mlip.datasets.generation.pack import pack
from mlip.datasets.generation.reactions import hydrogen_shifts
from mlip.datasets.generation.recipes import Amounts, Source
from mlip.datasets.generation.scaffolds import scaffold_of, split_of
from mlip.datasets.generation.shards import (
    Progress,
    extend_plan,
    make_plan,
    read_plan,
    run,
    waves,
    write_plan,
)
from mlip.datasets.h5_reader import H5Dataset

SEED = 1
QUOTA = {
    5: 450,
    6: 650,
    7: 800,
    8: 900,
    9: 900,
    10: 800,
    11: 600,
    12: 450,
    13: 150,
    14: 120,
    16: 80,
    18: 50,
    20: 30,
}
"""Random molecules by number of heavy atoms; all C, N, O constitutions of up to four are there besides."""
PAIRS = 1400
MORE = 0.9
"""Molecules of the second wave, for training alone and with few frames of each, as a share of the above."""
SHARES = {"valid": 0.03, "test": 0.08}
HESSIANS_UP_TO = 13
"""Atoms of molecules that get Hessians."""
HERE = Path(__file__).parent


def sections(path: Path) -> dict[str, list[str]]:
    """SMILES of each `## section` of a text file."""
    parts = path.read_text(encoding="utf-8").split("## ")[1:]
    return {part.split()[0]: part.split()[1:] for part in parts}


def plain(smiles: str) -> str:
    """Canonical SMILES without stereo marks."""
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False))


def num_atoms(smiles: str) -> int:
    """With hydrogens."""
    return sum(Chem.AddHs(Chem.MolFromSmiles(s)).GetNumAtoms() for s in smiles.split("."))


def sampled(scale: float, seed: int) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """The lists of `molecules.txt`, the curated molecules, and random ones grown from them."""
    lists = sections(HERE / "molecules.txt")
    curated = [plain(s) for s in lists["curated"] + lists["drugs"]]
    quota = {n: round(scale * k) for n, k in QUOTA.items()}
    return lists, curated, sample_larger(curated, lists["substituents"], quota, seed=seed)


def with_pairs(
    lists: dict[str, list[str]], singles: list[str], count: int, rng: random.Random
) -> list[Source]:
    """Sources of the molecules, and of so many pairs with them in it."""
    common = frozenset(lists["common_scaffolds"])
    out = [molecule(s, common, rng) for s in singles]
    found = pairs(lists["monomers"], singles, count, rng)
    return out + [c for s in found if (c := complex_(s, common, rng))]


def sources(scale: float) -> list[Source]:
    """Every molecule and complex once, with its group, its split and what is made of it."""
    lists, curated, grown = sampled(scale, SEED)
    rng = random.Random(SEED)
    singles = list(dict.fromkeys([*curated, *enumerate_small(4), *grown]))
    if scale < 1:
        singles = rng.sample(singles, max(20, round(scale * len(singles))))
    return with_pairs(lists, singles, round(scale * PAIRS), rng)


def more_sources(scale: float, known: set[str]) -> list[Source]:
    """The second wave: other molecules for training, with few frames of each."""
    lists, _, grown = sampled(MORE * scale, SEED + 1)
    rng = random.Random(SEED + 1)
    found = with_pairs(lists, grown, round(MORE * scale * PAIRS), rng)
    return [lean(s, rng) for s in found if s.split == "train" and s.name not in known]


def lean(source: Source, rng: random.Random) -> Source:
    """The source with about 13 frames instead of 24, and without Hessians."""
    pushes = int(rng.random() < 0.25)
    if "." in source.smiles:
        amounts = Amounts(conformers=1, relaxation=4, rattled=1, placed=3, pulled=2, pushes=pushes)
    else:
        amounts = Amounts(
            conformers=1, relaxation=4, rattled=1, stretched=2, twisted=1, thermal=3, pushes=pushes, shifts=0
        )
    return replace(source, amounts=amounts)


def molecule(smiles: str, common: frozenset[str], rng: random.Random) -> Source:
    """A molecule: small ones get more of everything, and Hessians; large ones less, since they cost more."""
    split = split_of(smiles, SHARES, seed=SEED, common=common)
    heavy, atoms = Chem.MolFromSmiles(smiles).GetNumHeavyAtoms(), num_atoms(smiles)
    amounts = Amounts(
        conformers=2 if heavy <= 12 else 1,
        relaxation=5,
        rattled=2,
        stretched=3,
        twisted=1,
        thermal=4,
        dynamics=4 if rng.random() < 0.08 and heavy <= 10 else 0,
        pushes=1 if rng.random() < (0.45 if heavy <= 10 else 0.2) else 0,
        shifts=1 if rng.random() < 0.4 and heavy <= 11 and split == shift_split(smiles, common, split) else 0,
        images=5,
        rounds=2,
    )
    if heavy <= 4:
        amounts = replace(amounts, rattled=4, stretched=6, twisted=2, thermal=7, pushes=2, dynamics=3)
    if atoms <= HESSIANS_UP_TO:
        amounts = replace(amounts, hessians=rng.choices((0, 1, 2), (3, 4, 3))[0])
    return Source(
        name=smiles, smiles=smiles, group=scaffold_of(smiles), split=split or "train", amounts=amounts
    )


def shift_split(smiles: str, common: frozenset[str], own: str | None) -> str | None:
    """The part that all tautomers of a molecule belong to; None where they differ: no path may join two."""
    parts = {own}
    for shift in hydrogen_shifts(Chem.AddHs(Chem.MolFromSmiles(smiles))):
        product = plain(Chem.MolToSmiles(Chem.RemoveHs(shift.product)))
        parts.add(split_of(product, SHARES, seed=SEED, common=common))
    return parts.pop() if len(parts) == 1 else None


def pairs(monomers: list[str], singles: list[str], count: int, rng: random.Random) -> Iterator[str]:
    """Pairs of small molecules; a third has any molecule of up to eight heavy atoms in it."""
    small = [s for s in singles if Chem.MolFromSmiles(s).GetNumHeavyAtoms() <= 8 and "." not in s]
    known = [plain(m) for m in monomers]
    seen = set()
    while len(seen) < count:
        first, second = rng.choice(known), rng.choice(known if rng.random() < 0.67 else small)
        pair = ".".join(sorted((first, second)))
        if pair not in seen and 2 < num_atoms(pair) <= 26:
            seen.add(pair)
            yield pair


def complex_(smiles: str, common: frozenset[str], rng: random.Random) -> Source | None:
    """A pair of molecules; None where one is validated and the other tested on."""
    split = split_of(smiles, SHARES, seed=SEED, common=common)
    if split is None:
        return None
    amounts = Amounts(
        conformers=1, relaxation=6, rattled=2, placed=4, pulled=4, pushes=1 if rng.random() < 0.5 else 0
    )
    group = " + ".join(sorted(scaffold_of(s) for s in smiles.split(".")))
    return Source(name=smiles, smiles=smiles, group=group, split=split, amounts=amounts)


def label(out: Path, *, workers: int, scale: float) -> None:
    about = f"examples/gfn2_organic/recipe.py, scale {scale:g}"
    if not (out / "plan.json").exists():  # listing the molecules takes a minute
        theory = TBLite.level_of_theory
        plan = make_plan(sources(scale), seed=SEED, level_of_theory=theory, licence="CC0-1.0", about=about)
        write_plan(out, plan)
    plan = read_plan(out)
    if plan["about"] != about:
        sys.exit(f"{out} holds a set of other settings: {plan['about']}")
    if len(waves(plan)) == 1:
        extend_plan(out, more_sources(scale, {s["name"] for s in plan["sources"]}))
    begin = time.monotonic()
    first: list[int] = []

    def say(progress: Progress) -> None:
        first.append(progress.done)
        spent = time.monotonic() - begin
        left = spent / (progress.done - first[0] + 1) * (progress.total - progress.done)
        counts = {k: v for k, v in progress.counts.items() if not k.startswith("rejected")}
        print(
            f"{progress.done}/{progress.total} shards, {spent:.0f} s, {left:.0f} s left, {counts}",
            file=sys.stderr,
        )
        sys.stderr.flush()

    run(out, TBLite, workers=workers, on_progress=say)


def mlip(*arguments: str | Path) -> None:
    """The command, in a process of its own."""
    subprocess.run([sys.executable, "-c", "from mlip.cli import main; main()", *arguments], check=True)


def explore(data: Path, model: Path, *, count: int, workers: int) -> None:
    """`explored.h5`, and `all.h5` with the frames of `train.h5` and these."""
    from exploring import add_explored

    add_explored(data, model, count=count, workers=workers, seed=SEED)
    mlip("data", "convert", data / "train.h5", data / "explored.h5", "--out", data / "all.h5")


def train(config: str, data: Path, frames: str, out: Path, *more: str, init: Path | None = None) -> None:
    """`mlip train` with a configuration of this folder, on frames of a folder of data."""
    files = {"train": frames, "valid": "valid.h5", "test.unseen_scaffolds": "test.h5"}
    parts = [f"data.{name}={(data / file).resolve()}" for name, file in files.items()]
    start = [] if init is None else [f"init={init.resolve()}"]
    mlip("train", HERE / config, *parts, *start, f"output={out.resolve()}", *more)


def evaluate(data: Path, model: Path, result: Path, *, limit: int) -> None:
    """Measure errors, relaxations and second derivatives."""
    from evaluation import evaluate as measure

    found = measure(str(model), data, limit=limit)
    result.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


def card(data: Path, model: Path, run: Path, out: Path) -> None:
    """Write the model card, with the dynamics if they were run."""
    from card import write_card

    summary = json.loads((data / "summary.json").read_text(encoding="utf-8"))
    summary["parts"]["train"]["hessians"] = len(H5Dataset(data / "hessians.h5"))
    summary["explored"] = len(H5Dataset(data / "explored.h5"))
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    dynamics = run / "dynamics.json"
    found["dynamics"] = json.loads(dynamics.read_text(encoding="utf-8")) if dynamics.exists() else None
    write_card(out, str(model), summary, found)


STEPS = (
    *("label", "pack", "train", "explore", "hessians", "refine", "head"),
    *("evaluate", "dynamics", "card"),
)
"""What makes the model, and what measures it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("all", *STEPS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--run", type=Path, default=HERE / "run", help="folder of the training")
    parser.add_argument("--model", type=Path, help="model to evaluate; by default RUN/head/model.safetensors")
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md", help="the model card")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor on the numbers of molecules, reactions, Hessians"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that label, explore, or follow dynamics"
    )
    parser.add_argument("--reactions", type=int, default=2448, help="to explore, at scale 1")
    parser.add_argument("--hessians", type=int, default=3000, help="to add, at scale 1")
    parser.add_argument("--limit", type=int, default=500, help="relaxations to compare, of each sort")
    parser.add_argument("--nve", type=int, default=50, help="molecules to run dynamics of, at scale 1")
    parser.add_argument("--picoseconds", type=float, default=100.0, help="of dynamics")
    parser.add_argument("settings", nargs="*", help="of train and refine, as max_epochs=2")
    given = parser.parse_intermixed_args()
    first = given.run / "first"
    trained, last = first / "model.safetensors", given.model or given.run / "head" / "model.safetensors"
    given.run.mkdir(parents=True, exist_ok=True)
    for step in STEPS if given.step == "all" else (given.step,):
        if step == "label":
            label(given.data, workers=given.workers, scale=given.scale)
        elif step == "pack":
            summary = pack(given.data)
            print(json.dumps({name: part["frames"] for name, part in summary["parts"].items()}))
        elif step == "hessians":
            from hessians import add_hessians

            count = round(given.scale * given.hessians)
            add_hessians(given.data, count=count, workers=given.workers, seed=SEED)
        elif step == "train":
            train("train.yaml", given.data, "train.h5", first, *given.settings)
        elif step == "explore":
            explore(given.data, trained, count=round(given.scale * given.reactions), workers=given.workers)
        elif step == "refine":
            train("refine.yaml", given.data, "all.h5", given.run, *given.settings, init=trained)
        elif step == "head":
            init = given.run / "model.safetensors"
            train("train_hessians.yaml", given.data, "hessians.h5", given.run / "head", init=init)
        elif step == "evaluate":
            evaluate(given.data, last, given.run / "evaluation.json", limit=given.limit)
        elif step == "dynamics":
            from dynamics import add_dynamics

            count = max(1, round(given.scale * given.nve))
            options = {"count": count, "picoseconds": given.picoseconds, "workers": given.workers}
            add_dynamics(given.data, last, given.run / "dynamics.json", **options)
        else:
            card(given.data, last, given.run, given.card)


if __name__ == "__main__":
    main()
