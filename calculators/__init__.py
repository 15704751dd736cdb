"""ASE calculators, imported as `mlip.calculators`."""

from __future__ import annotations

if __name__ != "mlip.calculators":
    raise ImportError(
        "this folder is the package `mlip.calculators`: write `from mlip.calculators import MLIPCalculator`, "
        "not `import calculators` from the repository root"
    )

from mlip.calculators.ase_calculator import MLIPCalculator, OutsideDomainWarning
from mlip.calculators.batch import BatchCalculator
from mlip.calculators.surface import ASESurface, Evaluation, StructureError, Surface, as_surface

__all__ = [
    "ASESurface",
    "BatchCalculator",
    "Evaluation",
    "MLIPCalculator",
    "OutsideDomainWarning",
    "StructureError",
    "Surface",
    "as_surface",
]
