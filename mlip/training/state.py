"""The training checkpoint ``last.ckpt``: written atomically, read without unpickling code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from mlip.errors import InputError

FORMAT = "mlip-training-state"
FORMAT_VERSION = 1


def save_state(path: Path, state: dict[str, Any], config: dict[str, Any]) -> None:
    """Write a checkpoint to a temporary name, then rename it.

    Args:
        path: ``last.ckpt``.
        state: Tensors and plain values.
        config: Configuration of the run, plain values.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(config),
        "random": random_state(),
        "state": state,
    }
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint and restore the random generators of torch.

    Returns:
        State and configuration as given to ``save_state``.

    Raises:
        InputError: The file is missing, damaged, or not such a checkpoint.
    """
    if not path.is_file():
        raise InputError(
            f"nothing to resume: {path} does not exist; start without --resume, "
            "or set `output` to the folder of the interrupted run"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} is not a readable training checkpoint: {str(error).splitlines()[0]}"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a training checkpoint of this package")
    if content["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path} has checkpoint format {content['format_version']}, but this version reads "
            f"{FORMAT_VERSION}"
        )
    set_random_state(content["random"])
    return content["state"], json.loads(content["config"])


def random_state() -> dict[str, Any]:
    """States of torch's generators. The order of the batches does not use them; dropout would."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``random_state`` returned."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
