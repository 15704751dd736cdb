"""The road into LAMMPS, imported as `mlip.lammps_plugin`: export, pair style, build and check commands (to
come)."""

from __future__ import annotations

if __name__ != "mlip.lammps_plugin":
    raise ImportError(
        "this folder is the package `mlip.lammps_plugin`: write `import mlip.lammps_plugin`, "
        "not `import lammps_plugin` from the repository root"
    )
