"""What the benchmarks of searches share: which structures, and on what surface."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ase.calculators.calculator import BaseCalculator

from mlip.calculators import MLIPCalculator
from mlip.calculators.named import named_calculator


def add_search_options(parser: argparse.ArgumentParser, *, pairs: str, each: str) -> None:
    """Options of both; `pairs` says what the folder holds, `each` what one file is."""
    parser.add_argument("--pairs", type=Path, required=True, help=pairs)
    parser.add_argument("--model", default="default", help="bundled model or checkpoint")
    parser.add_argument("--calculator", help="instead of a model: tblite")
    parser.add_argument("--every", type=int, default=1, help=f"only each so manieth {each}")
    parser.add_argument("--limit", type=int, help=f"at most so many {each}s")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--threads", type=int, default=2)


def chosen_files(arguments: argparse.Namespace) -> list[Path]:
    """Files of the folder that are taken."""
    return sorted(arguments.pairs.glob("*.xyz"))[:: arguments.every][: arguments.limit]


def chosen_surface(arguments: argparse.Namespace) -> tuple[dict[str, Any], BaseCalculator]:
    """What the surface is called in the results, and its calculator."""
    name = arguments.calculator
    facts = {"model": None if name else arguments.model, "calculator": name}
    return facts, named_calculator(name) if name else MLIPCalculator(arguments.model, dtype=arguments.dtype)
