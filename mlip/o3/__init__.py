"""Equivariant mathematics of O(3) in the real, component-normalised basis; knows nothing of networks."""

from mlip.o3.clebsch_gordan import clebsch_gordan
from mlip.o3.decompositions import Factors, factors
from mlip.o3.gaunt import gaunt
from mlip.o3.harmonics import spherical_harmonics
from mlip.o3.wigner import representation, wigner_d

__all__ = [
    "Factors",
    "clebsch_gordan",
    "factors",
    "gaunt",
    "representation",
    "spherical_harmonics",
    "wigner_d",
]
