"""The angular products: one signature, whatever the factors behind it."""

from __future__ import annotations

from mlip.o3.decompositions import FactorKind, Factors, factors

__all__ = ["FactorKind", "Factors", "factors"]
