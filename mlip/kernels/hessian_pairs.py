r"""What blocks of a Hessian are made of: vectors and tensors of both ends of a pair, on its direction.

Of each atom there are three components of vectors $v$ and five of second-degree tensors $t$, of k channels;
$T_{abm}$ is the symmetric matrix of component m and u the direction from the receiver i to the sender j.
The *basis* of a pair is $(v_i, v_j, \hat t_i, \hat t_j)$ with $\hat t_a = \sum_{bm} T_{bam} u_b t_m$, its
*projections* are those of the basis on u and $v_i \cdot v_j / \sqrt 3$. A block is

$$B_{ab} = p_a u_b + u_a q_b + \sum_c w_c v_{ica} v_{jcb} + \sum_{cm} T_{abm} (x_c t_{icm} + y_c t_{jcm})
  + \beta \delta_{ab}, \qquad p = L \cdot \mathrm{basis} + \alpha u, \quad q = R \cdot \mathrm{basis}$$

with coefficients $(\beta, \alpha, L, R, x, y, w)$ of each pair. Where nothing is differentiated, compiled
kernels do both; elsewhere torch does.
"""

from __future__ import annotations

import ctypes
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.kernels.library import SUFFIX, PairShape, load_library, usable

VECTOR, TENSOR = 3, 5
"""Components of a vector and of a tensor."""


class PairEnds:
    """Both ends of some pairs.

    Args:
        geometry: Vectors, then tensors of each atom.
        receivers: Index of one atom of each pair.
        senders: Index of the other.
        direction: Unit vectors from receiver to sender.
        tensor: The matrix of each component of a tensor, symmetric.
        compiled: By compiled kernels, which nothing can be differentiated through, or by torch.

    Attributes:
        basis: (pairs, 3, 4 channels).
        projections: (pairs, 5 channels).
    """

    basis: Float[Tensor, "pairs 3 channels4"]
    projections: Float[Tensor, "pairs channels5"]

    def __init__(
        self,
        geometry: Float[Tensor, "atoms 8 channels"],
        receivers: Int[Tensor, " pairs"],
        senders: Int[Tensor, " pairs"],
        direction: Float[Tensor, "pairs 3"],
        tensor: Float[Tensor, "3 3 5"],
        *,
        compiled: bool,
    ) -> None:
        self.direction, self._tensor, self._geometry = direction, tensor, geometry
        self._receivers, self._senders = receivers, senders
        self._compiled = compiled
        if compiled:
            self._dense = tuple(t.contiguous() for t in (geometry, direction, tensor))
            pairs, channels = receivers.shape[0], geometry.shape[2]
            self.basis = geometry.new_empty(pairs, 3, 4 * channels)
            self.projections = geometry.new_empty(pairs, 5 * channels)
            self._call("hessian_ends", self.basis, self.projections)
        else:
            self._in_torch()

    def _in_torch(self) -> None:
        ends = [self._geometry.index_select(0, i) for i in (self._receivers, self._senders)]
        (self._receiver, mine), (self._sender, other) = (end.split([VECTOR, TENSOR], dim=1) for end in ends)
        self._tensors = torch.cat([mine, other], dim=2)
        turn = (self.direction @ self._tensor.reshape(3, 15)).view(-1, 3, TENSOR, 1)
        turned = [
            sum((turn[:, :, m] * t[:, m : m + 1] for m in range(1, TENSOR)), turn[:, :, 0] * t[:, :1])
            for t in (mine, other)
        ]
        self.basis = torch.cat([self._receiver, self._sender, *turned], dim=2)
        along = (self.basis * self.direction.unsqueeze(2)).sum(dim=1)
        inner = (self._receiver * self._sender).sum(dim=1) / math.sqrt(3.0)
        self.projections = torch.cat([along, inner], dim=1)

    def blocks(self, coefficients: Float[Tensor, "pairs coefficients"]) -> Float[Tensor, "pairs 3 3"]:
        """Blocks with these coefficients, 2 + 11 channels of each pair (see the head of this file)."""
        if self._compiled:
            out = coefficients.new_empty(coefficients.shape[0], 3, 3)
            self._call("hessian_blocks", self.basis, coefficients.contiguous(), out)
            return out
        k, u = self._geometry.shape[2], self.direction
        one, along, left, right, of_ends, products = coefficients.split([1, 1, 4 * k, 4 * k, 2 * k, k], dim=1)
        before = (self.basis * left.unsqueeze(1)).sum(dim=2) + along * u
        after = (self.basis * right.unsqueeze(1)).sum(dim=2)
        block = before.unsqueeze(2) * u.unsqueeze(1) + u.unsqueeze(2) * after.unsqueeze(1)
        scaled = self._receiver * products.unsqueeze(1)
        block = block + (scaled.unsqueeze(2) * self._sender.unsqueeze(1)).sum(dim=3)
        mixed = (self._tensors * of_ends.unsqueeze(1)).sum(dim=2)
        block = block + (mixed @ self._tensor.reshape(9, TENSOR).T).view(-1, 3, 3)
        return block + one.unsqueeze(2) * torch.eye(3, dtype=u.dtype, device=u.device)

    def _call(self, name: str, *tensors: Tensor) -> None:
        library = load_library()
        if library is None:
            raise RuntimeError("the compiled kernels are not installed; reinstall polyad with a C++ compiler")
        ends = (self._receivers.contiguous(), self._senders.contiguous())
        pairs, channels = ends[0].shape[0], self._geometry.shape[2]
        shape = PairShape(pairs, channels, 0, *(end.data_ptr() for end in ends))
        pointers = [t.data_ptr() for t in (*self._dense, *tensors)]
        getattr(library, f"mlip_{name}_{SUFFIX[self._geometry.dtype]}")(ctypes.byref(shape), *pointers)


def supported(geometry: Tensor) -> bool:
    """Whether the compiled CPU kernels cover these operands: nothing is differentiated."""
    return (
        geometry.device.type == "cpu"
        and geometry.dtype in SUFFIX
        and not torch.is_grad_enabled()
        and load_library() is not None
    )


def pair_ends(
    geometry: Float[Tensor, "atoms 8 channels"],
    receivers: Int[Tensor, " pairs"],
    senders: Int[Tensor, " pairs"],
    direction: Float[Tensor, "pairs 3"],
    tensor: Float[Tensor, "3 3 5"],
) -> PairEnds:
    """`PairEnds` by compiled kernels where they can be used, else by torch."""
    compiled = supported(geometry) and usable()
    return PairEnds(geometry, receivers, senders, direction, tensor, compiled=compiled)
