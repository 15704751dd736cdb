"""The compiled kernels against the reference, on this machine: values, first and second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from mlip.kernels import reference
from mlip.kernels.library import instruction_set

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Largest accepted difference, relative to the largest number of each result."""

Operator = Callable[..., Any]


class KernelMismatch(RuntimeError):
    """A compiled kernel does not give the numbers of the reference."""


class Case(NamedTuple):
    """A small problem."""

    name: str
    compiled: Operator
    oracle: Operator
    operands: list[Tensor]
    """To be differentiated by."""
    others: tuple[Any, ...]
    order: int = 2
    """Highest derivative that there is; 0 for values alone."""


def _cases(dtype: torch.dtype) -> list[Case]:
    import mlip.kernels.edge_basis  # noqa: F401 (registers its operators)
    from mlip.kernels.message import dual_message
    from mlip.kernels.sphere_product import dual_sphere_product

    generator, ops = torch.Generator().manual_seed(20), torch.ops.mlip

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def index(high: int, n: int) -> Tensor:
        return torch.randint(0, high, (n,), generator=generator)

    nodes, edges, channels, points, degrees, basis = 7, 40, 20, 9, 3, 6
    row, senders, receivers = index(10 - basis, edges), index(nodes, edges), index(nodes, edges).sort().values
    ends, weight, eye = (
        (row, senders, receivers),
        normal(points, degrees**2),
        torch.eye(degrees**2, dtype=dtype),
    )
    y, beta, table = normal(2, edges, degrees**2), normal(2, edges, basis), normal(10, degrees, channels)
    a, scalars = normal(2, nodes, points, channels), normal(nodes, 1, channels)
    sphere = [normal(2, nodes, degrees**2, channels), normal(2, 3, degrees, channels), normal(2, 3, channels)]
    rule = (normal(points, degrees**2), normal(4, points), index(2, nodes))

    def on_duals(operator: Operator) -> Operator:
        return lambda a, table: operator(a, y, beta, table, weight, *ends)

    message, product = reference.message, reference.sphere_product
    return [
        Case("message", ops.message, message, [a[0], y[0], beta[0], table], (weight, *ends, nodes)),
        Case(
            "message of scalars", ops.message, message, [scalars, y[0], beta[0], table], (eye, *ends, nodes)
        ),
        Case(
            "message on dual numbers",
            on_duals(dual_message),
            on_duals(reference.dual_message),
            [a, table],
            (),
            order=1,
        ),
        Case("sphere_product", ops.sphere_product, product, [sphere[0][0], *sphere[1:]], rule),
        Case(
            "sphere_product on dual numbers",
            dual_sphere_product,
            reference.dual_sphere_product,
            sphere,
            rule,
            order=1,
        ),
        Case(
            "edge_basis",
            ops.edge_basis,
            reference.edge_basis,
            [normal(edges, 3) * 2],
            (normal(6, 6), 5.0, 8, 3),
        ),
    ]


def _linear_cases(dtype: torch.dtype) -> list[Case]:
    import mlip.kernels.linear  # noqa: F401 (registers its operators)

    generator, ops = torch.Generator().manual_seed(22), torch.ops.mlip

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def linear(x: Tensor, weight: Tensor) -> Any:
        return ops.linear(x, weight, weight.transpose(1, 2))

    def project(x: Tensor, matrix: Tensor) -> Any:
        return ops.project(x, matrix, matrix.T)

    x, matrix = normal(7, 9, 20), normal(13, 9)
    return [
        Case("linear", linear, reference.linear, [x, normal(3, 20, 70)], ()),
        Case("project", project, reference.project, [x], (matrix,)),
    ]


def _pair_case(dtype: torch.dtype) -> Case:
    from mlip.kernels import hessian_pairs

    generator = torch.Generator().manual_seed(23)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    atoms, pairs, kinds, channels, width, coordinates = 6, 30, 4, 20, 24, 9
    shapes: list[tuple[int, ...]] = [
        (7, width),
        (kinds, width),
        (kinds, width),
        (5 * channels, width),
        (width, width),
    ]
    shapes += [(width, 2 + 11 * channels), (width, width), (width, 4 * channels + coordinates)]
    shapes += [(4 * channels, coordinates), (3, 3, 5)]
    network = hessian_pairs.PairNetwork._make(normal(*shape) / shape[0] ** 0.5 for shape in shapes)
    receivers, senders = torch.randint(0, atoms, (2, pairs), generator=generator)
    kind = torch.randint(0, kinds, (pairs,), generator=generator)

    def terms(function: Operator) -> Operator:
        def run(scalars: Tensor, geometry: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
            ends = hessian_pairs.PairEnds(scalars, geometry, receivers, senders, kind, vectors)
            made = function(ends, network, 5.0)
            return made.blocks, made.weight, made.arms

        return run

    operands = [normal(atoms, 2 * width), normal(atoms, 8, channels), 1.5 * normal(pairs, 3)]
    oracle = terms(hessian_pairs.reference)
    return Case("pairs of a Hessian", terms(hessian_pairs.compiled), oracle, operands, (), order=0)


def _matrix_case(dtype: torch.dtype) -> Case:
    from mlip.kernels import hessian_matrix
    from mlip.kernels.hessian_pairs import PairTerms

    generator = torch.Generator().manual_seed(24)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    counts, coordinates = torch.tensor([3, 1, 5]), 7
    atoms, structure = torch.arange(9), torch.repeat_interleave(torch.arange(3), counts)
    ends = torch.cartesian_prod(atoms, atoms)
    receivers, senders = ends[(structure[ends[:, 0]] == structure[ends[:, 1]]) & (ends[:, 0] != ends[:, 1])].T
    near = torch.arange(0, len(receivers), 2)
    weight = normal(len(receivers)).square() + 0.1

    def of(function: Operator) -> Operator:
        def run(blocks: Tensor, arms: Tensor, metric: Tensor) -> tuple[Tensor, ...]:
            terms = PairTerms(blocks, weight, near, arms)
            both = metric + metric.transpose(1, 2)
            return tuple(function(hessian_matrix.MatrixParts(terms, both, receivers, senders, counts)))

        return run

    operands = [normal(len(receivers), 3, 3), normal(len(near), 3, coordinates)]
    operands.append(normal(9, coordinates, coordinates))
    compiled, oracle = of(hessian_matrix.compiled), of(hessian_matrix.reference)
    return Case("Hessians of structures", compiled, oracle, operands, (), order=0)


def _derivatives(function: Operator, case: Case) -> list[Tensor]:
    """Values, and derivatives up to the order of the case along fixed directions."""
    generator = torch.Generator().manual_seed(21)

    def directions(tensors: list[Tensor]) -> list[Tensor]:
        return [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in tensors]

    with torch.enable_grad():
        inputs = [t.clone().requires_grad_() for t in case.operands]
        output = function(*inputs, *case.others)
        values = [v for v in (output if isinstance(output, tuple) else (output,)) if v.is_floating_point()]
        if case.order == 0:
            return [t.detach() for t in values]
        cotangents = [t.requires_grad_() for t in directions(values)]
        first = torch.autograd.grad(values, inputs, cotangents, create_graph=case.order > 1)
        if case.order == 1:
            return [t.detach() for t in (*values, *first)]
        along = torch.stack(
            [(g * d).sum() for g, d in zip(first, directions(list(first)), strict=True)]
        ).sum()
        second = torch.autograd.grad(along, inputs + cotangents, allow_unused=True)
    return [t.detach() for t in (*values, *first, *second) if t is not None]


def self_test() -> dict[str, Any]:
    """Compare every compiled kernel with its reference.

    Returns:
        `ok`, `instruction_set`, and `kernels`: for each kernel and type its largest relative
        difference, `difference`, the `tolerance`, and the two numbers that differ most.
    """
    results: list[dict[str, Any]] = []
    chosen = instruction_set()
    if chosen == "none":
        return {"ok": True, "instruction_set": chosen, "kernels": results}
    with torch.inference_mode(False), _disable_current_modes():
        for dtype, tolerance in TOLERANCE.items():
            for case in [*_cases(dtype), *_linear_cases(dtype), _pair_case(dtype), _matrix_case(dtype)]:
                pairs = zip(
                    _derivatives(case.compiled, case),
                    _derivatives(case.oracle, case),
                    strict=True,
                )
                worst: tuple[float, float, float] = (0.0, 0.0, 0.0)
                for got, expected in pairs:
                    error = (got - expected).abs() / expected.abs().max().clamp(min=1e-30)
                    at = int(error.argmax())
                    value = float(error.reshape(-1)[at])
                    if worst[0] == worst[0] and not value <= worst[0]:  # a NaN stays the worst
                        worst = (value, float(got.reshape(-1)[at]), float(expected.reshape(-1)[at]))
                results.append(
                    {
                        "kernel": case.name,
                        "dtype": str(dtype).removeprefix("torch."),
                        "difference": worst[0],
                        "tolerance": tolerance,
                        "compiled": worst[1],
                        "reference": worst[2],
                        "ok": worst[0] <= tolerance,
                    }
                )
    return {"ok": all(r["ok"] for r in results), "instruction_set": chosen, "kernels": results}


def verify() -> None:
    """Raise `KernelMismatch` where a compiled kernel differs from its reference."""
    for result in self_test()["kernels"]:
        if not result["ok"]:
            raise KernelMismatch(
                f"the compiled kernel {result['kernel']} ({result['dtype']}, {instruction_set()}) gives "
                f"{result['compiled']!r} where the reference gives {result['reference']!r}; "
                "please report this with the output of `mlip doctor`"
            )
