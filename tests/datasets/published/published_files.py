"""What tests of published layouts share beside fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

WriteLmdb = Callable[..., Path]
"""Takes keys and values."""


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def tensors(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with tensors in place of arrays."""
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in fields.items()}
