r"""The many-body node product, registered with torch as `mlip::sphere_product` and its two derivatives.

$$f_{jq} = \sum_l s_{zjlc} \sum_m S_{q,lm} A_{n,lm,c}, \qquad
  B_{nkc} = \sum_q Q_{kq}\, f_1 (w_1 + f_2 (w_2 + f_3 w_3))$$

with $s$ and $w$ of the species z of the node. The second derivative is the backward pass on dual
numbers, so nothing of size nodes x points is ever stored.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mlip.kernels import reference
from mlip.kernels.library import SphereShape, call, covers, usable

COMPILED_CORRELATIONS, COMPILED_DEGREES = (2, 3), (2, 3, 4)

_SIGNATURE = "Tensor a, Tensor scale, Tensor weight, Tensor to_points, Tensor from_points, Tensor species"
_library = torch.library.Library("mlip", "FRAGMENT")
_library.define(f"sphere_product({_SIGNATURE}) -> Tensor")
_library.define(
    f"sphere_product_backward(Tensor g, {_SIGNATURE}, bool need_parameters) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    f"sphere_product_double_backward(Tensor? da, Tensor? dscale, Tensor? dweight, Tensor g, {_SIGNATURE}, "
    "bool need_parameters) -> (Tensor, Tensor, Tensor, Tensor)"
)


def supported(a: Tensor, scale: Tensor, from_points: Tensor) -> bool:
    """Whether the compiled CPU kernel covers these operands."""
    return (
        scale.shape[1] in COMPILED_CORRELATIONS
        and scale.shape[2] in COMPILED_DEGREES
        and from_points.shape[0] <= a.shape[1]
        and covers(a)
    )


def _call(
    name: str, first: tuple[Tensor | None, ...], operands: list[Tensor], outputs: tuple[Tensor | None, ...]
) -> None:
    """Run a compiled kernel on dense operands, in the order of `sphere_product`."""
    a, scale, weight, to_points, from_points, species = operands
    counts = (a.shape[0], scale.shape[0], from_points.shape[1], scale.shape[2], from_points.shape[0])
    shape = SphereShape(*counts, scale.shape[1], a.shape[2], 0, species.data_ptr())
    call(name, a.dtype, shape, (*first, a, scale, weight, to_points, from_points, *outputs))


def sphere_product_cpu(*arguments: Tensor) -> Tensor:
    if not supported(arguments[0], arguments[1], arguments[4]):
        return reference.sphere_product(*arguments)
    operands = [t.contiguous() for t in arguments]
    a, from_points = operands[0], operands[4]
    out = a.new_empty(a.shape[0], from_points.shape[0], a.shape[2])
    _call("sphere_product", (), operands, (out,))
    return out


def _outputs(a: Tensor, scale: Tensor, weight: Tensor, need: bool) -> tuple[Tensor, ...]:
    """Room for the gradients; those of the parameters are empty where they are not needed."""
    return (torch.empty_like(a), *(torch.empty_like(t) if need else t.new_empty(0) for t in (scale, weight)))


def sphere_product_backward_cpu(g: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, need = [t.contiguous() for t in arguments[:6]], arguments[6]
    outputs = _outputs(operands[0], operands[1], operands[2], need)
    wanted = outputs if need else (outputs[0], None, None)
    _call("sphere_product_backward", (g.contiguous(),), operands, wanted)
    return outputs


def sphere_product_double_backward_cpu(
    da: Tensor | None, dscale: Tensor | None, dweight: Tensor | None, g: Tensor, *arguments: Any
) -> tuple[Tensor, ...]:
    first = tuple(None if t is None else t.contiguous() for t in (da, dscale, dweight, g))
    operands, need = [t.contiguous() for t in arguments[:6]], arguments[6]
    gg, outputs = torch.empty_like(g.contiguous()), _outputs(operands[0], operands[1], operands[2], need)
    wanted = outputs if need else (outputs[0], None, None)
    _call("sphere_product_double_backward", first, operands, (gg, *wanted))
    return gg, *outputs


_library.impl("sphere_product", sphere_product_cpu, "CPU")
_library.impl("sphere_product_backward", sphere_product_backward_cpu, "CPU")
_library.impl("sphere_product_double_backward", sphere_product_double_backward_cpu, "CPU")


@torch.library.register_fake("mlip::sphere_product", lib=_library)
def _product_fake(*arguments: Tensor) -> Tensor:
    a, from_points = arguments[0], arguments[4]
    return a.new_empty(a.shape[0], from_points.shape[0], a.shape[2])


@torch.library.register_fake("mlip::sphere_product_backward", lib=_library)
def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    a, scale, weight = (t.new_empty(t.shape) for t in arguments[1:4])
    return (a, scale, weight) if arguments[7] else (a, scale.new_empty(0), weight.new_empty(0))


@torch.library.register_fake("mlip::sphere_product_double_backward", lib=_library)
def _double_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    g, a, scale, weight = (t.new_empty(t.shape) for t in arguments[3:7])
    return (g, a, scale, weight) if arguments[10] else (g, a, scale.new_empty(0), weight.new_empty(0))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.set_materialize_grads(False)


def _vjp(ctx: Any, g: Tensor | None) -> Any:
    if g is None:
        return (None,) * 6
    need = ctx.needs_input_grad
    grads = torch.ops.mlip.sphere_product_backward(g, *ctx.saved_tensors, need[1] or need[2])
    return (*(grad if wanted else None for grad, wanted in zip(grads, need, strict=False)), None, None, None)


def _save_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.set_materialize_grads(False)


def _backward_vjp(ctx: Any, da: Tensor | None, dscale: Tensor | None, dweight: Tensor | None) -> Any:
    if da is None and dscale is None and dweight is None:
        return (None,) * 8
    need = ctx.needs_input_grad
    grads = torch.ops.mlip.sphere_product_double_backward(
        da, dscale, dweight, *ctx.saved_tensors, need[2] or need[3]
    )
    return (
        *(grad if wanted else None for grad, wanted in zip(grads, need, strict=False)),
        None,
        None,
        None,
        None,
    )


torch.library.register_autograd("mlip::sphere_product", _vjp, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "mlip::sphere_product_backward", _backward_vjp, setup_context=_save_backward, lib=_library
)


def sphere_product(
    a: Float[Tensor, "nodes harmonics channels"],
    scale: Float[Tensor, "species_n correlation degrees channels"],
    weight: Float[Tensor, "species_n correlation channels"],
    to_points: Float[Tensor, "points harmonics"],
    from_points: Float[Tensor, "harmonics_out points"],
    species: Int[Tensor, " nodes"],
) -> Float[Tensor, "nodes harmonics_out channels"]:
    """Products of functions on the sphere (formula at the top of this file).

    Args:
        a: Features of each node.
        scale: Scale of each degree of each factor, by species.
        weight: Weight of each power, by species.
        to_points: Harmonics at the points of the rule; constant.
        from_points: Harmonics times the weights of the rule; constant.
        species: Index of the species of each node.

    The compiled kernel gives first and second derivatives; for higher ones use
    `mlip.kernels.reference.sphere_product`.
    """
    if not (supported(a, scale, from_points) and usable()):
        return reference.sphere_product(a, scale, weight, to_points, from_points, species)
    return torch.ops.mlip.sphere_product(a, scale, weight, to_points, from_points, species)


class _DualSphereProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, scale: Tensor, weight: Tensor, fixed: list[Tensor]) -> Tensor:
        a, scale, weight = (t.contiguous() for t in (a, scale, weight))
        out = a.new_empty(2, a.shape[1], fixed[1].shape[0], a.shape[3])
        _call("sphere_product_dual", (a[1],), [a[0], scale, weight, *fixed], (out[0], out[1]))
        ctx.save_for_backward(a, scale, weight)
        ctx.fixed = fixed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        a, scale, weight = ctx.saved_tensors
        g, ga, gscale, gweight = g.contiguous(), *(torch.empty_like(t) for t in (a, scale, weight))
        outputs = (ga[0], ga[1], gscale, gweight)
        operands = [a[0], scale, weight, *ctx.fixed]
        _call("sphere_product_dual_backward", (g[0], g[1], a[1]), operands, outputs)
        return ga, gscale, gweight, None


def dual_sphere_product(
    a: Float[Tensor, "2 nodes harmonics channels"],
    scale: Float[Tensor, "species_n correlation degrees channels"],
    weight: Float[Tensor, "species_n correlation channels"],
    to_points: Float[Tensor, "points harmonics"],
    from_points: Float[Tensor, "harmonics_out points"],
    species: Int[Tensor, " nodes"],
) -> Float[Tensor, "2 nodes harmonics_out channels"]:
    """`sphere_product`, and its derivative along the tangent of the features.

    The first axis holds value and tangent. Differentiable once, by features, scale and weight; for the
    compiled CPU kernel only.
    """
    fixed = [t.contiguous() for t in (to_points, from_points, species)]
    out: Tensor = _DualSphereProduct.apply(a, scale, weight, fixed)
    return out
