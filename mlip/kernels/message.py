r"""The message operator, registered with torch as `mlip::message` and its two derivatives.

$$z_{nqc} = \sum_{e \to n} a_{s(e)qc} \sum_l b_{elq} w_{elc}, \qquad
  b_{elq} = \sum_{m} W_{q,lm} Y_{e,lm}, \qquad w_{elc} = \sum_k \beta_{ek} P_{\mathrm{row}(e)+k,lc}$$

It never makes an edge x point x channel tensor. Being linear in each of a, Y, beta and P, its
derivatives are sums of the same form, so that training on forces needs no saved edge tensors. The
derivatives leave out (return empty) the gradient of P where it is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mlip.kernels import reference
from mlip.kernels.library import MessageShape, call, covers, usable

_MAX_DEGREES, _MAX_BASIS = 5, 64

_SIGNATURE = "Tensor weight, Tensor row, Tensor senders, Tensor receivers"
_library = torch.library.Library("mlip", "FRAGMENT")
_library.define(
    f"message(Tensor a, Tensor y, Tensor beta, Tensor table, {_SIGNATURE}, SymInt num_receivers) -> Tensor"
)
_library.define(
    f"message_backward(Tensor g, Tensor a, Tensor y, Tensor beta, Tensor table, {_SIGNATURE}, "
    "bool need_table) -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "message_double_backward(Tensor? da, Tensor? dy, Tensor? dbeta, Tensor? dtable, Tensor g, Tensor a, "
    f"Tensor y, Tensor beta, Tensor table, {_SIGNATURE}, bool need_table) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def supported(a: Tensor, table: Tensor, beta: Tensor) -> bool:
    """Whether the compiled CPU kernel covers these operands."""
    return table.shape[1] <= _MAX_DEGREES and beta.shape[1] <= _MAX_BASIS and covers(a)


def _dense(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _call(
    name: str,
    num_receivers: int,
    first: tuple[Tensor | None, ...],
    operands: list[Tensor],
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Run a compiled kernel on dense operands, in the order of `message`."""
    a, y, beta, table, weight, row, senders, receivers = operands
    counts = (a.shape[0], num_receivers, senders.shape[0], weight.shape[0], a.shape[1])
    sizes = (table.shape[1], table.shape[2], beta.shape[1], table.shape[0], 0)
    shape = MessageShape(*counts, *sizes, senders.data_ptr(), receivers.data_ptr(), row.data_ptr())
    call(name, a.dtype, shape, (*first, a, y, beta, table, weight, *outputs))


def message_cpu(*arguments: Any) -> Tensor:
    a, beta, table = arguments[0], arguments[2], arguments[3]
    if not supported(a, table, beta):
        return reference.message(*arguments)
    operands, num_receivers = _dense(arguments[:8]), arguments[8]
    z = a.new_empty(num_receivers, operands[4].shape[0], a.shape[2])
    _call("message", num_receivers, (), operands, (z,))
    return z


def message_backward_cpu(g: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, need_table = _dense(arguments[:8]), arguments[8]
    a, y, beta, table = operands[:4]
    ga, gy, gbeta = torch.empty_like(a), torch.empty_like(y), torch.empty_like(beta)
    gtable = torch.empty_like(table) if need_table else None
    _call("message_backward", g.shape[0], (g.contiguous(),), operands, (ga, gy, gbeta, gtable))
    return ga, gy, gbeta, table.new_empty(0) if gtable is None else gtable


def message_double_backward_cpu(
    da: Tensor | None,
    dy: Tensor | None,
    dbeta: Tensor | None,
    dtable: Tensor | None,
    g: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    first = tuple(None if t is None else t.contiguous() for t in (da, dy, dbeta, dtable, g))
    operands, need_table = _dense(arguments[:8]), arguments[8]
    a, y, beta, table = operands[:4]
    gg, ga, gy, gbeta = (torch.empty_like(t) for t in (g.contiguous(), a, y, beta))
    gtable = torch.empty_like(table) if need_table else None
    _call("message_double_backward", g.shape[0], first, operands, (gg, ga, gy, gbeta, gtable))
    return gg, ga, gy, gbeta, table.new_empty(0) if gtable is None else gtable


_library.impl("message", message_cpu, "CPU")
_library.impl("message_backward", message_backward_cpu, "CPU")
_library.impl("message_double_backward", message_double_backward_cpu, "CPU")


@torch.library.register_fake("mlip::message", lib=_library)
def _message_fake(*arguments: Any) -> Tensor:
    a, weight, num_receivers = arguments[0], arguments[4], arguments[8]
    return a.new_empty(num_receivers, weight.shape[0], a.shape[2])


@torch.library.register_fake("mlip::message_backward", lib=_library)
def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    a, y, beta, table = (t.new_empty(t.shape) for t in arguments[1:5])
    return a, y, beta, table if arguments[9] else table.new_empty(0)


@torch.library.register_fake("mlip::message_double_backward", lib=_library)
def _double_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    g, a, y, beta, table = (t.new_empty(t.shape) for t in arguments[4:9])
    return g, a, y, beta, table if arguments[13] else table.new_empty(0)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.set_materialize_grads(False)


def _message_vjp(ctx: Any, g: Tensor | None) -> Any:
    if g is None:
        return (None,) * 9
    saved = ctx.saved_tensors
    grads = torch.ops.mlip.message_backward(g, *saved, ctx.needs_input_grad[3])
    keep = [grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)]
    return (*keep, None, None, None, None, None)


def _save_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.set_materialize_grads(False)


def _backward_vjp(
    ctx: Any, da: Tensor | None, dy: Tensor | None, dbeta: Tensor | None, dtable: Tensor | None
) -> Any:
    if da is None and dy is None and dbeta is None and dtable is None:
        return (None,) * 10
    grads = torch.ops.mlip.message_double_backward(
        da, dy, dbeta, dtable, *ctx.saved_tensors, ctx.needs_input_grad[4]
    )
    keep = [grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)]
    return (*keep, None, None, None, None, None)


torch.library.register_autograd("mlip::message", _message_vjp, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "mlip::message_backward", _backward_vjp, setup_context=_save_backward, lib=_library
)


def message(
    a: Float[Tensor, "senders_n a_points channels"],
    y: Float[Tensor, "edges harmonics"],
    beta: Float[Tensor, "edges basis"],
    table: Float[Tensor, "rows degrees channels"],
    weight: Float[Tensor, "points harmonics"],
    row: Int[Tensor, " edges"],
    senders: Int[Tensor, " edges"],
    receivers: Int[Tensor, " edges"],
    num_receivers: int,
) -> Float[Tensor, "num_receivers points channels"]:
    """Sum factored messages over the edges into each receiver (formula at the top of this file).

    Args:
        a: Sender features in the factored space; `a_points` is `points`, or 1 for features that
            are the same at every point (scalars).
        y: Harmonics of each edge, `degrees**2` of them.
        beta: Radial basis of each edge, times the cutoff envelope.
        table: Radial functions: a row of `degrees x channels` coefficients for each basis function.
        weight: Angular factor of the product, `Factors.W`; constant, it gets no gradient.
        row: First row of `table` for each edge: its species pair, its spline interval.
        senders: Index of the sending node.
        receivers: Index of the receiving node, in ascending order.
        num_receivers: Number of receiving nodes.

    Returns:
        Messages summed on each receiver.

    The compiled kernel gives first and second derivatives; for higher ones use
    `mlip.kernels.reference.message`.
    """
    if not (supported(a, table, beta) and usable()):
        return reference.message(a, y, beta, table, weight, row, senders, receivers, num_receivers)
    return torch.ops.mlip.message(a, y, beta, table, weight, row, senders, receivers, num_receivers)


class _DualMessage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, table: Tensor, tangents: tuple[Tensor, Tensor], fixed: Any) -> Tensor:
        a, table, nodes = a.contiguous(), table.contiguous(), a.shape[1]
        (dy, dbeta), (y, beta, *others) = tangents, fixed
        z = a.new_empty(2, nodes, others[0].shape[0], a.shape[3])
        operands = [a[0], y, beta, table, *others]
        _call("message_dual", nodes, (_tangent(a), dy, dbeta), operands, (z[0], z[1]))
        ctx.save_for_backward(a, table)
        ctx.tangents, ctx.fixed = tangents, fixed
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        (a, table), (dy, dbeta), (y, beta, *others) = ctx.saved_tensors, ctx.tangents, ctx.fixed
        g, ga, gtable = g.contiguous(), torch.empty_like(a), torch.empty_like(table)
        first = (g[0], g[1], _tangent(a), dy, dbeta)
        operands = [a[0], y, beta, table, *others]
        _call("message_dual_backward", a.shape[1], first, operands, (ga[0], _tangent(ga), gtable))
        return ga, gtable, None, None


def _tangent(a: Tensor) -> Tensor | None:
    return a[1] if a.shape[0] == 2 else None


def dual_message(
    a: Float[Tensor, "dual nodes a_points channels"],
    y: Float[Tensor, "2 edges harmonics"],
    beta: Float[Tensor, "2 edges basis"],
    table: Float[Tensor, "rows degrees channels"],
    weight: Float[Tensor, "points harmonics"],
    row: Int[Tensor, " edges"],
    senders: Int[Tensor, " edges"],
    receivers: Int[Tensor, " edges"],
) -> Float[Tensor, "2 nodes points channels"]:
    """`message`, and its derivative along the tangents of features, harmonics and radial basis.

    The first axis holds value and tangent; features may come without a tangent, which is then zero.
    Differentiable once, by features and table; for the compiled CPU kernel only.
    """
    fixed = [t.contiguous() for t in (y[0], beta[0], weight, row, senders, receivers)]
    z: Tensor = _DualMessage.apply(a, table, (y[1].contiguous(), beta[1].contiguous()), fixed)
    return z
