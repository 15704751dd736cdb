"""The angular products: one signature, whatever carries them out."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.errors import InputError
from mlip.o3.clebsch_gordan import clebsch_gordan
from mlip.o3.constants import ConstantModule
from mlip.o3.decompositions import FactorKind, Factors, factors
from mlip.o3.gaunt import gaunt

__all__ = ["FactorKind", "Factors", "Product", "ProductKind", "factors", "natural_paths"]

ProductKind = Literal["cg", "quadrature", "cp", "cp-all"]


def natural_paths(lmax_x: int, lmax_y: int, lmax_z: int) -> tuple[tuple[int, int, int], ...]:
    """All couplings (l1, l2, l3) with l1 + l2 + l3 even, sorted by l1, then l2, then l3."""
    return tuple(
        (l1, l2, l3)
        for l1 in range(lmax_x + 1)
        for l2 in range(lmax_y + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, lmax_z) + 1, 2)
    )


class Product(ConstantModule):
    r"""Channel-wise bilinear product of two sets of spherical features of natural parity.

    * "cg": $z^{l_3} = \sum_{l_1 l_2} w_{l_1 l_2 l_3} \sqrt{2l_3+1}\, C^{l_1 l_2 l_3} x^{l_1} y^{l_2}$ over
      all even-sum paths, each with its own weight (`paths` lists them in the order of the weights).
    * "quadrature", "cp": $z = U\,[(V x) \odot (W\, w\, y)]$ with one weight per degree of y; exactly the
      product of functions on the sphere. With ``weights = gaunt_weights`` "cg" is the same map.
    * "cp-all": likewise, but with every Clebsch–Gordan path, odd-sum ones included, at equal scale:
      equivariant under rotations, not under reflections.

    `error` is the measured relative error of the factors (0 for "cg"); the shipped ones are exact to
    rounding.

    Args:
        kind: Which product.
        lmax_x: Largest degree of the first operand.
        lmax_y: Largest degree of the second operand.
        lmax_z: Largest degree of the result.

    Raises:
        InputError: If the kind is unknown, a degree is negative, or the kind has no factors for the degrees.

    Source: Luo et al. 2024, arXiv:2401.10216 (Gaunt); Lin et al. 2025, arXiv:2507.01131 (decomposed).
    """

    def __init__(self, kind: ProductKind, lmax_x: int, lmax_y: int, lmax_z: int) -> None:
        super().__init__()
        if kind not in get_args(ProductKind):
            raise InputError(f'`kind` is "{kind}" but must be one of {", ".join(get_args(ProductKind))}')
        degrees = (lmax_x, lmax_y, lmax_z)
        if min(degrees) < 0:
            raise InputError(f"degrees are {degrees} but none may be negative")
        self.kind: ProductKind = kind
        self.lmax_x, self.lmax_y, self.lmax_z = degrees
        self.paths = natural_paths(*degrees) if kind == "cg" else ()
        if kind == "cg":
            self.error, self.rank = 0.0, 0
            self._prepare_paths()
        else:
            matrices = factors(kind, *degrees)
            self.error, self.rank = matrices.error, matrices.rank
            self._prepare_factors(matrices)
        self.num_weights = len(self.paths) if kind == "cg" else lmax_y + 1

    def _prepare_paths(self) -> None:
        self._groups: list[tuple[int, int, tuple[int, ...]]] = []
        for l1 in range(self.lmax_x + 1):
            for l2 in range(self.lmax_y + 1):
                results = tuple(l3 for a, b, l3 in self.paths if (a, b) == (l1, l2))
                if results:
                    self._groups.append((l1, l2, results))
        for l1, l2, results in self._groups:
            blocks = [math.sqrt(2 * l3 + 1) * clebsch_gordan(l1, l2, l3) for l3 in results]
            self.register_constant(f"coupling_{l1}_{l2}", torch.cat(blocks, dim=2).permute(2, 0, 1))
        scales = [_gaunt_scale(*path) for path in self.paths]
        self.register_constant("gaunt_weights", torch.tensor(scales, dtype=torch.float64))

    def _prepare_factors(self, matrices: Factors) -> None:
        by_degree = torch.zeros(matrices.rank, self.lmax_y + 1, matrices.W.shape[1], dtype=torch.float64)
        for l in range(self.lmax_y + 1):
            block = slice(l * l, (l + 1) ** 2)
            by_degree[:, l, block] = matrices.W[:, block]
        self.register_constant("U", matrices.U)
        self.register_constant("V", matrices.V)
        self.register_constant("W", matrices.W)
        self.register_constant("W_by_degree", by_degree.flatten(0, 1))

    def extra_repr(self) -> str:
        """Kind, degrees and rank."""
        rank = f", rank {self.rank}" if self.rank else ""
        return f"{self.kind}, {self.lmax_x} x {self.lmax_y} -> {self.lmax_z}{rank}"

    def forward(
        self,
        x: Float[Tensor, "... dx channels"],
        y: Float[Tensor, "... dy channels_or_1"],
        weights: Float[Tensor, "... num_weights channels"] | None = None,
    ) -> Float[Tensor, "... dz channels"]:
        """Multiply channel by channel.

        Args:
            x: First operand, degrees 0 … lmax_x.
            y: Second operand, degrees 0 … lmax_y; a single channel serves all channels of x.
            weights: One number per weight and channel (leading dimensions broadcast); None means ones.

        Raises:
            InputError: If a dimension does not fit.
        """
        self._check("x", x, (self.lmax_x + 1) ** 2)
        self._check("y", y, (self.lmax_y + 1) ** 2)
        if weights is not None:
            self._check("weights", weights, self.num_weights)
        if y.shape[-1] not in (1, x.shape[-1]):
            raise InputError(f"`y` has {y.shape[-1]} channels but must have 1 or {x.shape[-1]} as `x`")
        return self._couple(x, y, weights) if self.kind == "cg" else self._factored(x, y, weights)

    def _check(self, name: str, value: Tensor, size: int) -> None:
        if value.ndim < 2 or value.shape[-2] != size:
            raise InputError(
                f"`{name}` has shape {tuple(value.shape)} but its last but one dimension must be {size}"
            )

    def _factored(self, x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        left = self.constant("V", x) @ x
        if weights is None:
            right = self.constant("W", x) @ y
        elif y.shape[-1] == 1:
            by_degree = self.constant("W_by_degree", x) @ y
            right = by_degree.unflatten(-2, (self.rank, self.lmax_y + 1)).squeeze(-1) @ weights
        else:
            each = [
                weights[..., l : l + 1, :].expand(*weights.shape[:-2], 2 * l + 1, -1)
                for l in range(self.lmax_y + 1)
            ]
            right = self.constant("W", x) @ (y * torch.cat(each, dim=-2))
        return self.constant("U", x) @ (left * right)

    def _couple(self, x: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        by_degree: list[Tensor | None] = [None] * (self.lmax_z + 1)
        path = 0
        for l1, l2, results in self._groups:
            coupling = self.constant(f"coupling_{l1}_{l2}", x)
            x_l, y_l = x[..., l1 * l1 : (l1 + 1) ** 2, :], y[..., l2 * l2 : (l2 + 1) ** 2, :]
            outer = (x_l.unsqueeze(-2) * y_l.unsqueeze(-3)).flatten(-3, -2)
            product = coupling.flatten(1) @ outer
            start = 0
            for l3 in results:
                term = product[..., start : start + 2 * l3 + 1, :]
                if weights is not None:
                    term = term * weights[..., path : path + 1, :]
                previous = by_degree[l3]
                by_degree[l3] = term if previous is None else previous + term
                start, path = start + 2 * l3 + 1, path + 1
        leading = torch.broadcast_shapes(
            x.shape[:-2], y.shape[:-2], weights.shape[:-2] if weights is not None else ()
        )
        columns = [
            x.new_zeros(*leading, 2 * l + 1, x.shape[-1])
            if degree is None
            else degree.expand(*leading, 2 * l + 1, x.shape[-1])
            for l, degree in enumerate(by_degree)
        ]
        return torch.cat(columns, dim=-2)


def _gaunt_scale(l1: int, l2: int, l3: int) -> float:
    """Weight of a path at which "cg" becomes the product of functions on the sphere."""
    return float((gaunt(l1, l2, l3) * clebsch_gordan(l1, l2, l3)).sum()) / math.sqrt(2 * l3 + 1)
