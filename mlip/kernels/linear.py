r"""Linear maps of features. Of channels, with one matrix per degree, registered as `mlip::linear`,

$$\mathrm{out}_{n,lm,d} = \sum_c x_{n,lm,c}\, W_{l,cd}$$

and of components, with one matrix for all nodes, as `mlip::project`.

$$\mathrm{out}_{nqc} = \sum_m P_{qm}\, x_{nmc}$$
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.kernels import reference
from mlip.kernels.library import LinearShape, ProjectShape, call, covers, usable

_library = torch.library.Library("mlip", "FRAGMENT")
_library.define("linear(Tensor x, Tensor weight, Tensor transposed) -> Tensor")
_library.define("project(Tensor x, Tensor matrix, Tensor transposed) -> Tensor")


def linear_cpu(x: Tensor, weight: Tensor, transposed: Tensor) -> Tensor:
    if not covers(x):
        return reference.linear(x, weight).contiguous()
    x, weight = x.contiguous(), weight.contiguous()
    nodes, harmonics, channels = x.shape
    degrees, _, channels_out = weight.shape
    out = x.new_empty(nodes, harmonics, channels_out)
    shape = LinearShape(nodes, degrees, channels, channels_out, 0)
    call("linear", x.dtype, shape, (x, weight, out))
    return out


def project_cpu(x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
    if not covers(x):
        return reference.project(x, matrix)
    x, matrix = x.contiguous(), matrix.contiguous()
    out = x.new_empty(x.shape[0], matrix.shape[0], x.shape[2])
    shape = ProjectShape(x.shape[0], x.shape[1], matrix.shape[0], x.shape[2], 0)
    call("project", x.dtype, shape, (x, matrix, out))
    return out


_library.impl("linear", linear_cpu, "CPU")
_library.impl("project", project_cpu, "CPU")


@torch.library.register_fake("mlip::linear", lib=_library)
def _linear_fake(x: Tensor, weight: Tensor, transposed: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], weight.shape[2])


@torch.library.register_fake("mlip::project", lib=_library)
def _project_fake(x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], matrix.shape[0], x.shape[2])


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _linear_vjp(ctx: Any, g: Tensor) -> Any:
    x, weight, transposed = ctx.saved_tensors
    need_x, need_weight, _ = ctx.needs_input_grad
    gx = torch.ops.mlip.linear(g, transposed, weight) if need_x else None
    return gx, _weight_gradient(x, g, weight.shape[0]) if need_weight else None, None


def _weight_gradient(x: Tensor, g: Tensor, degrees: int) -> Tensor:
    by_component = torch.bmm(x.permute(1, 2, 0), g.transpose(0, 1))
    out = by_component.new_zeros(degrees, *by_component.shape[1:])
    return out.index_add(0, reference.degree_of_harmonic(degrees, x.device), by_component)


torch.library.register_autograd("mlip::linear", _linear_vjp, setup_context=_save, lib=_library)


def _save_matrices(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[1:])


def _project_vjp(ctx: Any, g: Tensor) -> Any:
    matrix, transposed = ctx.saved_tensors
    return torch.ops.mlip.project(g, transposed, matrix), None, None


torch.library.register_autograd("mlip::project", _project_vjp, setup_context=_save_matrices, lib=_library)


def linear(
    x: Float[Tensor, "nodes harmonics channels_in"],
    weight: Float[Tensor, "degrees channels_in channels_out"],
    transposed: Float[Tensor, "degrees channels_out channels_in"] | None = None,
) -> Float[Tensor, "nodes harmonics channels_out"]:
    """Map the channels of every component by the matrix of its degree (formula at the top of this file).

    Args:
        x: Features of each node, all components of `degrees` degrees.
        weight: One matrix per degree.
        transposed: `weight.transpose(1, 2)`, for the gradient by `x`; whoever keeps it dense saves a copy in
            every pass. It must be made of `weight` by torch, which differentiates through it.

    Differentiable to any order.
    """
    if not (covers(x) and usable()):
        return reference.linear(x, weight)
    return torch.ops.mlip.linear(x, weight, weight.transpose(1, 2) if transposed is None else transposed)


def project(
    x: Float[Tensor, "nodes components_in channels"],
    matrix: Float[Tensor, "components_out components_in"],
    transposed: Float[Tensor, "components_in components_out"],
) -> Float[Tensor, "nodes components_out channels"]:
    """Map the components of every node by one constant matrix (formula at the top of this file).

    Args:
        x: Features of each node.
        matrix: Constant; it gets no gradient.
        transposed: `matrix.T`, for the gradient by `x`; dense, it saves a copy in every pass.

    Differentiable to any order by `x`.
    """
    if not (covers(x) and usable()):
        return reference.project(x, matrix)
    return torch.ops.mlip.project(x, matrix, transposed)
