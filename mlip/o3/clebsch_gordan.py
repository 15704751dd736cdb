"""Clebsch–Gordan coefficients in the real basis."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mlip.errors import InputError


@functools.cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> Float[Tensor, "m1 m2 m3"]:
    r"""Coupling tensor of three real irreps of SO(3), unit Frobenius norm, float64.

    The SU(2) coefficients are carried to the real basis of `spherical_harmonics` with the phase
    $(-i)^l$ per degree, which makes them real; sign and order are those of
    ``e3nn.o3.wigner_3j`` 0.5 and later (0.4.4 differs in sign for the permutations of (1, l, l)).
    Even under exchange of two indices when $l_1+l_2+l_3$ is even. Do not modify the returned tensor
    in place: it is cached.

    Raises:
        InputError: If the degrees are negative or violate the triangle inequality.
    """
    if min(l1, l2, l3) < 0:
        raise InputError(f"degrees are ({l1}, {l2}, {l3}) but none may be negative")
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise InputError(
            f"degrees ({l1}, {l2}, {l3}) do not couple: the last must lie in {abs(l1 - l2)} … {l1 + l2}"
        )
    real = np.einsum(
        "ai,bj,ck,abc->ijk",
        _complex_from_real(l1),
        _complex_from_real(l2),
        _complex_from_real(l3).conj(),
        _su2(l1, l2, l3),
    ).real
    return torch.from_numpy(real / np.linalg.norm(real))


def _complex_from_real(l: int) -> np.ndarray:
    """Unitary matrix whose rows are complex and columns real components, times $(-i)^l$."""
    matrix = np.zeros((2 * l + 1, 2 * l + 1), dtype=np.complex128)
    matrix[l, l] = 1.0
    for m in range(1, l + 1):
        sign = (-1) ** m
        matrix[l - m, [l - m, l + m]] = np.array([-1j, 1.0]) / math.sqrt(2)
        matrix[l + m, [l - m, l + m]] = np.array([1j, 1.0]) * sign / math.sqrt(2)
    return (-1j) ** l * matrix


def _su2(l1: int, l2: int, l3: int) -> np.ndarray:
    """SU(2) coefficients $<l_1 m_1 l_2 m_2 | l_3 m_3>$."""
    table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            table[l1 + m1, l2 + m2, l3 + m1 + m2] = _su2_coefficient(l1, m1, l2, m2, l3)
    return table


def _su2_coefficient(l1: int, m1: int, l2: int, m2: int, l3: int) -> float:
    """One coefficient, by Racah's formula in exact arithmetic (Varshalovich 1988, 8.2.1)."""
    f = math.factorial
    m3 = m1 + m2
    norm = Fraction(
        (2 * l3 + 1) * f(l3 + l1 - l2) * f(l3 - l1 + l2) * f(l1 + l2 - l3) * f(l3 + m3) * f(l3 - m3),
        f(l1 + l2 + l3 + 1) * f(l1 - m1) * f(l1 + m1) * f(l2 - m2) * f(l2 + m2),
    )
    total = sum(
        Fraction(
            (-1) ** (k + l2 + m2) * f(l2 + l3 + m1 - k) * f(l1 - m1 + k),
            f(k) * f(l3 - l1 + l2 - k) * f(l3 + m3 - k) * f(k + l1 - l2 - m3),
        )
        for k in range(max(0, l2 - l1 + m3), min(l3 + m3, l3 - l1 + l2, l2 + l3 + m1) + 1)
    )
    return math.sqrt(norm) * float(total)
