"""Searches on the energy surface: relaxation."""

from mlip.search.relax import OPTIMIZERS, RelaxResult, RelaxStep, check_relaxation, relax

__all__ = ["OPTIMIZERS", "RelaxResult", "RelaxStep", "check_relaxation", "relax"]
