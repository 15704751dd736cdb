"""`--model` or `--calculator`: what computes energies in a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

DEFAULT_MODEL = "default"


def choose_calculator(
    model: str, calculator: str | None, *, device: str, dtype: str
) -> tuple[BaseCalculator, dict[str, Any]]:
    """The calculator of a command, and the lines of its report that say which it was.

    Args:
        model: Of `--model`.
        calculator: Of `--calculator`, a name of `mlip.calculators.named`, instead of a model.
        device: Of the model.
        dtype: Of the model.

    Raises:
        InputError: Both were chosen, or the one that was cannot be used.
    """
    if calculator is None:
        from mlip.calculators import MLIPCalculator

        potential = MLIPCalculator(model, device=device, dtype=dtype)
        return potential, {**about_model(model, dtype), "device": str(potential.device), "calculator": None}
    if model != DEFAULT_MODEL:
        raise InputError(
            f'--model "{model}" and --calculator "{calculator}" are both given: only one can compute energies'
        )
    from mlip.calculators.named import CALCULATORS, named_calculator

    reference = named_calculator(calculator)
    about = {"model": None, "model_sha256": None, "level_of_theory": CALCULATORS[calculator].title}
    return reference, {**about, "dtype": "float64", "device": "cpu", "calculator": calculator}


def about_model(model: str, dtype: str) -> dict[str, Any]:
    """What reports say of the model: as it was asked for, which weights, what it learned, and its precision.

    Raises:
        InputError: There is no such model.
    """
    return {
        "model": model,
        "model_sha256": model_digest(model),
        "level_of_theory": level_of_theory(model),
        "dtype": dtype,
    }


def level_of_theory(model: str) -> str:
    """Of the energies that a model was trained on; "unknown" where its file does not say.

    Raises:
        InputError: There is no such model.
    """
    from mlip.checkpoint import read_header

    return str(read_header(model).get("level_of_theory", "unknown"))


def model_digest(model: str) -> str:
    """The first 16 digits of the SHA-256 of a model's file: which weights made a result.

    Raises:
        InputError: There is no such model.
    """
    import hashlib

    from mlip.checkpoint import resolve_model

    return hashlib.sha256(resolve_model(model).read_bytes()).hexdigest()[:16]


def check_computable(atoms: Atoms, calculator: BaseCalculator) -> None:
    """See that a model can be asked for a structure, so that the last of many does not fail hours later.

    Raises:
        InputError: It has elements that the model does not know, a charge or spin, or no sound geometry.
    """
    import torch

    from mlip.calculators import MLIPCalculator
    from mlip.calculators.electrons import require_neutral_singlet
    from mlip.neighbors import build_graph

    if isinstance(calculator, MLIPCalculator):
        calculator.potential.check_species(torch.from_numpy(atoms.numbers))
        require_neutral_singlet(atoms)
        build_graph(atoms, calculator.potential.cutoff)
