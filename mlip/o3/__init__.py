"""Equivariant mathematics of O(3) in the real, component-normalised basis; knows nothing of networks."""

from mlip.o3.clebsch_gordan import clebsch_gordan
from mlip.o3.gaunt import gaunt, lebedev
from mlip.o3.harmonics import spherical_harmonics
from mlip.o3.irreps import Irreps
from mlip.o3.products import Factors, Product, factors, natural_paths
from mlip.o3.symmetric import SymmetricContraction, symmetric_coupling
from mlip.o3.wigner import representation, wigner_d

__all__ = [
    "Factors",
    "Irreps",
    "Product",
    "SymmetricContraction",
    "clebsch_gordan",
    "factors",
    "gaunt",
    "lebedev",
    "natural_paths",
    "representation",
    "spherical_harmonics",
    "symmetric_coupling",
    "wigner_d",
]
