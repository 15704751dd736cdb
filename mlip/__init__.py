"""polyad: machine-learned interatomic potentials.

Importing `mlip` costs next to nothing: PyTorch, ASE and the rest are imported on first use of the names
below.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlip.calculators import MLIPCalculator as MLIPCalculator
    from mlip.checkpoint import load_potential as load_potential
    from mlip.checkpoint import save_potential as save_potential
    from mlip.errors import InputError as InputError
    from mlip.graph import AtomGraph as AtomGraph
    from mlip.graph import collate as collate
    from mlip.neighbors import build_graph as build_graph
    from mlip.potential import Potential as Potential
    from mlip.search.relax import relax as relax

_HOME = {
    "AtomGraph": "mlip.graph",
    "InputError": "mlip.errors",
    "MLIPCalculator": "mlip.calculators",
    "Potential": "mlip.potential",
    "build_graph": "mlip.neighbors",
    "collate": "mlip.graph",
    "load_potential": "mlip.checkpoint",
    "relax": "mlip.search.relax",
    "save_potential": "mlip.checkpoint",
}

__all__ = [
    "AtomGraph",
    "InputError",
    "MLIPCalculator",
    "Potential",
    "build_graph",
    "collate",
    "load_potential",
    "relax",
    "save_potential",
]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("polyad")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
