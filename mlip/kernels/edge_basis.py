"""Harmonics and radial splines of the edges, registered as `mlip::edge_basis` and its two derivatives.

The second derivative is the backward pass on dual numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.kernels import reference
from mlip.kernels.library import EdgeShape, call, covers, usable

_MAX_DEGREES = 6

_SIGNATURE = "Tensor vectors, Tensor polynomials, float cutoff, int intervals, int lmax"
_library = torch.library.Library("mlip", "FRAGMENT")
_library.define(f"edge_basis({_SIGNATURE}) -> (Tensor, Tensor, Tensor)")
_library.define(f"edge_basis_backward(Tensor gy, Tensor gbeta, {_SIGNATURE}) -> Tensor")
_library.define(
    f"edge_basis_double_backward(Tensor dvectors, Tensor gy, Tensor gbeta, {_SIGNATURE}) "
    "-> (Tensor, Tensor, Tensor)"
)


def supported(vectors: Tensor, lmax: int) -> bool:
    """Whether the compiled CPU kernel covers these operands."""
    return lmax < _MAX_DEGREES and covers(vectors)


def _call(
    name: str,
    tensors: tuple[Tensor, ...],
    vectors: Tensor,
    polynomials: Tensor,
    cutoff: float,
    intervals: int,
    lmax: int,
) -> None:
    if vectors.shape[0] == 0:
        return
    exact = polynomials.double().contiguous()
    shape = EdgeShape(vectors.shape[0], lmax + 1, intervals, 0, cutoff, exact.data_ptr())
    call(name, vectors.dtype, shape, tensors)


def edge_basis_cpu(vectors: Tensor, polynomials: Tensor, cutoff: float, intervals: int, lmax: int) -> Any:
    if not supported(vectors, lmax):
        return reference.edge_basis(vectors, polynomials, cutoff, intervals, lmax)
    vectors = vectors.contiguous()
    y = vectors.new_empty(vectors.shape[0], (lmax + 1) ** 2)
    beta = vectors.new_empty(vectors.shape[0], 6)
    interval = torch.empty(vectors.shape[0], dtype=torch.int64)
    _call("edge_basis", (vectors, y, beta, interval), vectors, polynomials, cutoff, intervals, lmax)
    return y, beta, interval


def edge_basis_backward_cpu(
    gy: Tensor, gbeta: Tensor, vectors: Tensor, polynomials: Tensor, cutoff: float, intervals: int, lmax: int
) -> Any:
    gy, gbeta, vectors = gy.contiguous(), gbeta.contiguous(), vectors.contiguous()
    out = torch.empty_like(vectors)
    _call("edge_basis_backward", (gy, gbeta, vectors, out), vectors, polynomials, cutoff, intervals, lmax)
    return out


def edge_basis_double_backward_cpu(
    dvectors: Tensor,
    gy: Tensor,
    gbeta: Tensor,
    vectors: Tensor,
    polynomials: Tensor,
    cutoff: float,
    intervals: int,
    lmax: int,
) -> Any:
    dvectors, gy, gbeta, vectors = (t.contiguous() for t in (dvectors, gy, gbeta, vectors))
    out = (torch.empty_like(gy), torch.empty_like(gbeta), torch.empty_like(vectors))
    _call(
        "edge_basis_double_backward",
        (dvectors, gy, gbeta, vectors, *out),
        vectors,
        polynomials,
        cutoff,
        intervals,
        lmax,
    )
    return out


_library.impl("edge_basis", edge_basis_cpu, "CPU")
_library.impl("edge_basis_backward", edge_basis_backward_cpu, "CPU")
_library.impl("edge_basis_double_backward", edge_basis_double_backward_cpu, "CPU")


@torch.library.register_fake("mlip::edge_basis", lib=_library)
def _basis_fake(vectors: Tensor, polynomials: Tensor, cutoff: float, intervals: int, lmax: int) -> Any:
    edges = vectors.shape[0]
    return (
        vectors.new_empty(edges, (lmax + 1) ** 2),
        vectors.new_empty(edges, 6),
        vectors.new_empty(edges, dtype=torch.int64),
    )


@torch.library.register_fake("mlip::edge_basis_backward", lib=_library)
def _backward_fake(
    gy: Tensor, gbeta: Tensor, vectors: Tensor, polynomials: Tensor, cutoff: float, intervals: int, lmax: int
) -> Any:
    return vectors.new_empty(vectors.shape)


@torch.library.register_fake("mlip::edge_basis_double_backward", lib=_library)
def _double_fake(
    dvectors: Tensor,
    gy: Tensor,
    gbeta: Tensor,
    vectors: Tensor,
    polynomials: Tensor,
    cutoff: float,
    intervals: int,
    lmax: int,
) -> Any:
    return gy.new_empty(gy.shape), gbeta.new_empty(gbeta.shape), vectors.new_empty(vectors.shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.settings = inputs[2:]
    ctx.mark_non_differentiable(output[2])


def _vjp(ctx: Any, gy: Tensor, gbeta: Tensor, _: Any) -> Any:
    return (
        torch.ops.mlip.edge_basis_backward(gy, gbeta, *ctx.saved_tensors, *ctx.settings),
        None,
        None,
        None,
        None,
    )


def _save_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _backward_vjp(ctx: Any, dvectors: Tensor) -> Any:
    out = torch.ops.mlip.edge_basis_double_backward(dvectors, *ctx.saved_tensors, *ctx.settings)
    return (*out, None, None, None, None)


torch.library.register_autograd("mlip::edge_basis", _vjp, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "mlip::edge_basis_backward", _backward_vjp, setup_context=_save_backward, lib=_library
)


def edge_basis(
    vectors: Float[Tensor, "edges 3"],
    polynomials: Float[Tensor, "6 6"],
    cutoff: float,
    intervals: int,
    lmax: int,
) -> tuple[Float[Tensor, "edges harmonics"], Float[Tensor, "edges 6"], Int[Tensor, " edges"]]:
    """Angular and radial basis of each edge.

    Args:
        vectors: Edge vectors, Å, none of length zero.
        polynomials: The six quintic B-splines on one interval, `[power, function]`.
        cutoff: Å; the splines live on (0, cutoff), edges beyond it get zeros.
        intervals: Number of intervals of the spline.
        lmax: Largest degree of the harmonics.

    Returns:
        Harmonics of the directions (component normalised, as `mlip.o3.spherical_harmonics`), values of
        the six splines that are not zero at each length, and the index of the first of them.

    The compiled kernel gives first and second derivatives; for higher ones use
    `mlip.kernels.reference.edge_basis`.
    """
    if not (supported(vectors, lmax) and usable()):
        return reference.edge_basis(vectors, polynomials, cutoff, intervals, lmax)
    return torch.ops.mlip.edge_basis(vectors, polynomials, cutoff, intervals, lmax)
