"""Angular products written as three small matrices: from quadrature, or from a polyadic decomposition."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.errors import InputError
from mlip.o3.clebsch_gordan import clebsch_gordan
from mlip.o3.gaunt import gaunt_tensor, lebedev
from mlip.o3.harmonics import spherical_harmonics

FactorKind = Literal["quadrature", "cp", "cp-all"]
FACTOR_FILE = Path(__file__).with_name("factors.safetensors")


@dataclass(frozen=True)
class Factors:
    r"""A bilinear map of irreps as $z_k = \sum_r U_{kr} (V_{ri} x_i) (W_{rj} y_j)$, float64.

    Attributes:
        U: (dz, R), back to the degrees of z.
        V: (R, dx), applied to x.
        W: (R, dy), applied to y.
        error: Frobenius norm of what U, V, W leave of the tensor, relative to the tensor.
        kind: Where the matrices come from.
        lmax_x: Largest degree of x; dx = (lmax_x + 1)².
        lmax_y: Largest degree of y.
        lmax_z: Largest degree of z.
    """

    U: Float[Tensor, "dz rank"]
    V: Float[Tensor, "rank dx"]
    W: Float[Tensor, "rank dy"]
    error: float
    kind: str
    lmax_x: int
    lmax_y: int
    lmax_z: int

    @property
    def rank(self) -> int:
        """Number of scalar products."""
        return self.V.shape[0]


def factors(kind: FactorKind, lmax_x: int, lmax_y: int, lmax_z: int) -> Factors:
    """The three matrices of a factored product.

    Args:
        kind: "quadrature": the Gaunt tensor on a Lebedev rule of degree lmax_x + lmax_y + lmax_z, exact;
            U carries the weights. "cp": the same tensor at the lower rank of a polyadic decomposition.
            "cp-all": the tensor of every Clebsch–Gordan path with equal weight, odd ones included
            (all three degrees equal; equivariant under rotations only).
        lmax_x: Largest degree of the first operand.
        lmax_y: Largest degree of the second operand.
        lmax_z: Largest degree of the result.

    Returns:
        Shared between callers: do not modify in place.

    Raises:
        InputError: If the kind is unknown, a degree is negative, or no such decomposition is shipped.
    """
    degrees = (lmax_x, lmax_y, lmax_z)
    if kind not in get_args(FactorKind):
        raise InputError(f'`kind` is "{kind}" but must be one of {", ".join(get_args(FactorKind))}')
    if min(degrees) < 0:
        raise InputError(f"degrees are {degrees} but none may be negative")
    return _factors(kind, *degrees)


@functools.cache
def _factors(kind: FactorKind, lmax_x: int, lmax_y: int, lmax_z: int) -> Factors:
    degrees = (lmax_x, lmax_y, lmax_z)
    matrices = _quadrature(*degrees) if kind == "quadrature" else _shipped(kind, degrees)
    target = target_tensor(kind, *degrees)
    model = torch.einsum("kr,ri,rj->ijk", *matrices)
    error = float((model - target).norm() / target.norm())
    return Factors(*matrices, error, kind, *degrees)


def target_tensor(kind: FactorKind, lmax_x: int, lmax_y: int, lmax_z: int) -> Float[Tensor, "dx dy dz"]:
    """The tensor that the factors of this kind stand for: Gaunt, or for "cp-all" every path with weight 1."""
    if kind != "cp-all":
        return gaunt_tensor(lmax_x, lmax_y, lmax_z)
    tensor = torch.zeros((lmax_x + 1) ** 2, (lmax_y + 1) ** 2, (lmax_z + 1) ** 2, dtype=torch.float64)
    for l1 in range(lmax_x + 1):
        for l2 in range(lmax_y + 1):
            for l3 in range(abs(l1 - l2), min(l1 + l2, lmax_z) + 1):
                block = tuple(slice(l * l, (l + 1) ** 2) for l in (l1, l2, l3))
                tensor[block] = clebsch_gordan(l1, l2, l3)
    return tensor


def _quadrature(lmax_x: int, lmax_y: int, lmax_z: int) -> tuple[Tensor, Tensor, Tensor]:
    points, weights = lebedev(lmax_x + lmax_y + lmax_z)
    harmonics = spherical_harmonics(points, max(lmax_x, lmax_y, lmax_z))
    x, y, z = (harmonics[:, : (l + 1) ** 2].contiguous() for l in (lmax_x, lmax_y, lmax_z))
    return (z * weights[:, None]).T.contiguous(), x, y


def shipped_degrees(kind: FactorKind) -> tuple[tuple[int, int, int], ...]:
    """Degrees (in ascending order) for which decompositions of this kind come with the package."""
    return tuple(sorted(degrees for k, degrees in _load() if k == kind))


def _shipped(kind: FactorKind, degrees: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """U, V, W from the shipped entry of lowest rank that contains these degrees.

    The part of an exact decomposition that belongs to lower degrees is exact, and a degree above the sum of
    the other two adds nothing but zeros. The Gaunt tensor is symmetric, so any order of the degrees is served
    by one entry; a degree of zero leaves the identity.
    """
    order = sorted(range(3), key=lambda operand: degrees[operand]) if kind == "cp" else [0, 1, 2]
    low, middle, high = (degrees[operand] for operand in order)
    wanted = (low, middle, min(high, low + middle)) if kind == "cp" else degrees
    if wanted[0] == 0 and kind == "cp":
        eye = torch.eye((wanted[1] + 1) ** 2, dtype=torch.float64)
        entry = (torch.ones(len(eye), 1, dtype=torch.float64), eye, eye)
    else:
        fitting = [
            matrices
            for (entry_kind, shipped), matrices in _load().items()
            if entry_kind == kind and all(s >= w for s, w in zip(shipped, wanted, strict=True))
        ]
        if not fitting:
            known = ", ".join("{},{},{}".format(*d) for d in shipped_degrees(kind)) or "none"
            raise InputError(
                f'no "{kind}" factors are shipped for degrees {",".join(map(str, degrees))}; there are '
                f'factors up to {known} (in any order for "cp"); use "quadrature" or fit with mlip.o3.fit'
            )
        entry = min(fitting, key=lambda matrices: len(matrices[0]))
    sized = {}
    for operand, matrix in zip(order, entry, strict=True):
        dimension = (degrees[operand] + 1) ** 2
        sized[operand] = torch.zeros(len(matrix), dimension, dtype=torch.float64)
        shared = min(dimension, matrix.shape[1])
        sized[operand][:, :shared] = matrix[:, :shared]
    return sized[2].T.contiguous(), sized[0], sized[1]


@functools.cache
def _load() -> dict[tuple[str, tuple[int, ...]], tuple[Tensor, Tensor, Tensor]]:
    """Shipped factors (R, d) in the order of the degrees, by kind and degrees."""
    if not FACTOR_FILE.exists():
        return {}
    from safetensors.torch import load_file

    grouped: dict[tuple[str, tuple[int, ...]], dict[str, Tensor]] = {}
    for name, tensor in load_file(FACTOR_FILE).items():
        kind, degrees, operand = name.split("/")
        grouped.setdefault((kind, tuple(map(int, degrees.split(",")))), {})[operand] = tensor
    return {key: (group["0"], group["1"], group["2"]) for key, group in grouped.items()}
