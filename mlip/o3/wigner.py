"""Matrices by which the real spherical harmonics transform under O(3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.errors import InputError
from mlip.o3.clebsch_gordan import clebsch_gordan


def wigner_d(l: int, rotation: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... m m"]:
    r"""Matrix $D^l$ with $Y_l(O\,\hat r) = D^l(O)\,Y_l(\hat r)$, for any O in O(3).

    Built up by degree from $D^{l} \subset D^{l-1} \otimes O$, so it is a polynomial in the matrix
    elements (differentiable, no Euler angles). A reflection carries the natural parity $(-1)^l$;
    for the proper part of an improper `rotation` pass ``-rotation``.

    Args:
        l: Degree.
        rotation: Orthogonal matrices acting on column vectors (x, y, z).

    Raises:
        InputError: If l is negative or the matrices are not 3 × 3.
    """
    return _all_degrees(l, rotation)[-1]


def representation(lmax: int, rotation: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... d d"]:
    r"""Block-diagonal matrix of all degrees 0 … lmax with natural parity; $d = (l_{max}+1)^2$.

    Args:
        lmax: Largest degree.
        rotation: Any elements of O(3).

    Raises:
        InputError: If lmax is negative or the matrices are not 3 × 3.
    """
    blocks = _all_degrees(lmax, rotation)
    out = rotation.new_zeros(*rotation.shape[:-2], (lmax + 1) ** 2, (lmax + 1) ** 2)
    for l, block in enumerate(blocks):
        out[..., l * l : (l + 1) ** 2, l * l : (l + 1) ** 2] = block
    return out


def _all_degrees(lmax: int, rotation: Tensor) -> list[Tensor]:
    if lmax < 0:
        raise InputError(f"degree is {lmax} but must be at least 0")
    if rotation.shape[-2:] != (3, 3):
        raise InputError(f"`rotation` has shape {tuple(rotation.shape)} but must end in (3, 3)")
    blocks = [torch.ones_like(rotation[..., :1, :1])]
    if lmax > 0:
        blocks.append(rotation)
    for l in range(2, lmax + 1):
        coupling = clebsch_gordan(l - 1, 1, l).to(rotation)
        block = torch.einsum("ijm,...ik,...jn,knp->...mp", coupling, blocks[-1], rotation, coupling)
        blocks.append((2 * l + 1) * block)
    return blocks
