"""One file per backbone; `MODELS` maps a name to its class.

A model never sees positions or a cell: it maps `(atomic_numbers, senders, receivers, edge_vectors)`
to a dictionary with `node_energy` (eV, without the energies of the isolated atoms).
"""

from __future__ import annotations

from mlip.models.base import Model
from mlip.models.polyad import Polyad

MODELS: dict[str, type[Model]] = {"polyad": Polyad}

__all__ = ["MODELS", "Model", "Polyad"]
