"""For how many of the pairs of reactant and product is a verified saddle found that connects them, in
what time?

Each pair goes through `find_transition_states`, the search of `mlip ts`. With `--confirm`, every saddle
found with a model is refined with GFN2-xTB from there, within 20 steps and a Hessian at each, and its
imaginary modes are counted. One line of JSON per pair, a last one for all; `--resume FILE` takes pairs
that FILE already has from it.

    python examples/benchmarks/transition_states.py --pairs ../shared/data/reactions/t1x_pairs --confirm
    python examples/benchmarks/transition_states.py --pairs ../shared/data/reactions/t1x_pairs
    --calculator tblite
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ase.io
import torch
from measurement import common_facts, emit, note
from searches import add_search_options, chosen_files, chosen_surface

from mlip.calculators.named import named_calculator
from mlip.search.reaction import Reaction
from mlip.search.stationary import find_saddles
from mlip.search.transition_state import find_transition_states
from mlip.search.vibrations import normal_modes

CONFIRMING_STEPS = 20


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    facts, engine = chosen_surface(arguments)
    common = {
        **common_facts("transition_states", arguments),
        **facts,
        "threads": arguments.threads,
    }
    files = chosen_files(arguments)
    earlier = _earlier(arguments.resume)
    records = [earlier[path.stem] for path in files if path.stem in earlier]
    left = [path for path in files if path.stem not in earlier]
    for start in range(0, len(left), arguments.together):
        part = left[start : start + arguments.together]
        note(f"{start} of {len(left)} done; {', '.join(path.stem for path in part)}")
        pairs = [tuple(ase.io.read(path, index=":")) for path in part]
        begin = time.perf_counter()
        found = find_transition_states(pairs, engine)
        seconds = (time.perf_counter() - begin) / len(part)
        for path, reaction in zip(part, found, strict=True):
            record = _record(path, reaction, seconds)
            if arguments.confirm:
                record |= _confirmed(reaction)
            emit({**common, **record})
            records.append(record)
    emit({**common, **_summary(records)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_search_options(parser, pairs="folder of files with two structures each", each="pair")
    parser.add_argument("--confirm", action="store_true", help="refine the saddles with GFN2-xTB")
    parser.add_argument("--together", type=int, default=16, help="pairs searched at a time")
    parser.add_argument("--resume", type=Path, help="output of an earlier run")
    return parser.parse_args()


def _earlier(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return {line["pair"]: line for line in lines if "pair" in line}


def _record(path: Path, reaction: Reaction, seconds: float) -> dict[str, Any]:
    return {
        "pair": path.stem,
        "atoms": len(ase.io.read(path, index=0)),
        "verdict": reaction.verdict.kind,
        "text": reaction.verdict.text,
        "same_conformers": reaction.verdict.same_conformers,
        "robust": reaction.verdict.robust,
        "barrier_eV": reaction.barrier,
        "imaginary_per_cm": None if reaction.saddle is None else float(reaction.saddle.modes.frequencies[0]),
        "evaluations": reaction.evaluations,
        "hessians": reaction.hessians,
        "seconds": round(seconds, 2),
        "log": reaction.log,
    }


def _confirmed(reaction: Reaction) -> dict[str, Any]:
    """What GFN2-xTB makes of a saddle: imaginary modes, steps, and how far the atoms move."""
    if reaction.saddle is None or not reaction.verdict.reached:
        return {"confirmed": None}
    from mlip.alignment import rmsd

    start = reaction.saddle.atoms
    (point,) = find_saddles(
        [start],
        named_calculator("tblite"),
        along=[reaction.saddle.modes.cartesian[0]],
        steps=CONFIRMING_STEPS,
        exact_every=1,
    )
    frequencies = normal_modes(point.atoms, point.hessian).frequencies
    return {
        "confirmed": bool(point.converged and (frequencies < -10.0).sum() == 1),
        "confirming_steps": point.steps,
        "confirmed_rmsd_A": round(rmsd(start, point.atoms), 4),
        "confirmed_imaginary_per_cm": float(frequencies[0]),
    }


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    reached = [record for record in records if record["verdict"] == "intended"]
    judged = [record["confirmed"] for record in records if record.get("confirmed") is not None]
    return {
        "pairs": len(records),
        "verdicts": dict(Counter(record["verdict"] for record in records).most_common()),
        "intended_share": round(len(reached) / max(1, len(records)), 4),
        "same_conformers": sum(bool(record["same_conformers"]) for record in reached),
        "seconds_per_reaction": round(sum(r["seconds"] for r in records) / max(1, len(records)), 2),
        "evaluations_per_reaction": round(sum(r["evaluations"] for r in records) / max(1, len(records)), 1),
        "confirmed": sum(judged) if judged else None,
        "confirmed_of": len(judged) if judged else None,
    }


if __name__ == "__main__":
    main()
