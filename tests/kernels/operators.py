"""Random operands of the kernels, and their results with all first and second derivatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Largest difference relative to the largest number of each result, or to one, the size of the operands."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call: differentiable operands, then the others; which of the operands ask for gradients."""

    operands: tuple[Tensor, ...]
    others: tuple[Any, ...]
    asking: tuple[bool, ...]

    def to(self, dtype: torch.dtype) -> Case:
        def convert(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        return Case(tuple(map(convert, self.operands)), tuple(map(convert, self.others)), self.asking)

    @property
    def dtype(self) -> torch.dtype:
        return self.operands[0].dtype


class Draw:
    """Numbers for a case; the shapes come from Hypothesis, the numbers from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def index(self, high: int, n: int) -> Tensor:
        return torch.randint(0, max(high, 1), (n,), generator=self.generator)


def message_case(
    *,
    nodes: int = 5,
    edges: int = 30,
    channels: int = 5,
    points: int = 7,
    degrees: int = 3,
    basis: int = 6,
    scalars: bool = False,
    pure: bool = False,
    strided: bool = False,
    asking: Sequence[bool] = (True,) * 4,
    seed: int = 0,
) -> Case:
    """Operands of the message; `pure` factors see one degree at each point."""
    draw, rows, edges = Draw(seed), basis + 4, edges if nodes else 0
    harmonics = degrees**2
    weight = torch.eye(harmonics, dtype=torch.float64) * 1.5 if pure else draw.normal(points, harmonics)
    a = draw.normal(nodes, 1 if scalars else len(weight), channels)
    operands = [
        a,
        draw.normal(edges, harmonics),
        draw.normal(edges, basis),
        draw.normal(rows, degrees, channels),
    ]
    if strided:
        operands = [t.mT.contiguous().mT for t in operands]
    graph = (
        draw.index(rows - basis + 1, edges),
        draw.index(nodes, edges),
        draw.index(nodes, edges).sort().values,
    )
    return Case(tuple(operands), (weight, *graph, nodes), tuple(asking))


def sphere_case(
    *,
    nodes: int = 5,
    channels: int = 5,
    points: int = 7,
    degrees: int = 3,
    degrees_out: int = 2,
    correlation: int = 3,
    species: int = 2,
    strided: bool = False,
    asking: Sequence[bool] = (True,) * 3,
    seed: int = 0,
) -> Case:
    """Operands of the node product."""
    draw = Draw(seed)
    operands = [
        draw.normal(nodes, degrees**2, channels),
        draw.normal(species, correlation, degrees, channels),
        draw.normal(species, correlation, channels),
    ]
    if strided:
        operands = [t.mT.contiguous().mT for t in operands]
    rule = (draw.normal(points, degrees**2), draw.normal(degrees_out**2, points))
    return Case(tuple(operands), (*rule, draw.index(species, nodes)), tuple(asking))


def edge_case(
    *,
    edges: int = 20,
    cutoff: float = 4.0,
    intervals: int = 8,
    lmax: int = 2,
    strided: bool = False,
    seed: int = 0,
) -> Case:
    """Operands of the edge basis; lengths from 0.05 to 1.2 cutoffs."""
    draw = Draw(seed)
    directions = torch.nn.functional.normalize(draw.normal(edges, 3), dim=1)
    lengths = cutoff * (0.05 + 1.15 * torch.rand(edges, 1, generator=draw.generator, dtype=torch.float64))
    vectors = directions * lengths
    if strided:
        vectors = vectors.mT.contiguous().mT
    return Case((vectors,), (draw.normal(6, 6), cutoff, intervals, lmax), (True,))


def linear_case(
    *,
    nodes: int = 5,
    channels: int = 5,
    channels_out: int = 7,
    degrees: int = 3,
    strided: bool = False,
    asking: Sequence[bool] = (True,) * 2,
    seed: int = 0,
) -> Case:
    """Operands of the linear map."""
    draw = Draw(seed)
    operands = [draw.normal(nodes, degrees**2, channels), draw.normal(degrees, channels, channels_out)]
    if strided:
        operands = [t.mT.contiguous().mT for t in operands]
    return Case(tuple(operands), (), tuple(asking))


def project_case(
    *, nodes: int = 5, channels: int = 5, components: int = 9, components_out: int = 13, seed: int = 0
) -> Case:
    """Operands of the projection; its matrix is a constant."""
    draw = Draw(seed)
    x, matrix = draw.normal(nodes, components, channels), draw.normal(components_out, components)
    return Case((x,), (matrix,), (True,))


_seeds, _channels = st.integers(0, 2**31), st.sampled_from([1, 2, 7, 8, 9, 16, 17, 31, 33, 40])

message_cases = st.builds(
    message_case,
    nodes=st.integers(0, 9),
    edges=st.integers(0, 50),
    channels=_channels,
    points=st.sampled_from([1, 3, 8, 9, 17]),
    degrees=st.integers(1, 5),
    basis=st.sampled_from([1, 5, 6, 8, 17]),
    scalars=st.booleans(),
    pure=st.booleans(),
    strided=st.booleans(),
    asking=st.tuples(*[st.booleans()] * 4).filter(any),
    seed=_seeds,
)


def _sphere_case(*, degrees: int, fewer: int, **rest: Any) -> Case:
    return sphere_case(degrees=degrees, degrees_out=max(1, degrees - fewer), **rest)


sphere_cases = st.builds(
    _sphere_case,
    nodes=st.sampled_from([0, 1, 4, 60]),
    channels=_channels,
    points=st.sampled_from([1, 6, 26]),
    degrees=st.integers(2, 4),
    fewer=st.integers(0, 3),
    correlation=st.integers(2, 3),
    species=st.integers(1, 3),
    strided=st.booleans(),
    asking=st.tuples(*[st.booleans()] * 3).filter(any),
    seed=_seeds,
)
linear_cases = st.builds(
    linear_case,
    nodes=st.sampled_from([0, 1, 4, 13, 60]),
    channels=_channels,
    channels_out=st.sampled_from([1, 7, 16, 33, 64, 80]),
    degrees=st.integers(1, 4),
    strided=st.booleans(),
    asking=st.tuples(*[st.booleans()] * 2).filter(any),
    seed=_seeds,
)
project_cases = st.builds(
    project_case,
    nodes=st.sampled_from([0, 1, 4, 60]),
    channels=_channels,
    components=st.sampled_from([1, 4, 9, 16]),
    components_out=st.sampled_from([1, 5, 6, 21]),
    seed=_seeds,
)
edge_cases = st.builds(
    edge_case,
    edges=st.sampled_from([0, 1, 7, 8, 17, 40]),
    cutoff=st.floats(1.0, 9.0),
    intervals=st.integers(1, 30),
    lmax=st.integers(0, 5),
    strided=st.booleans(),
    seed=_seeds,
)


def derivatives(function: Callable[..., Any], case: Case, *, seed: int = 1) -> dict[str, Tensor]:
    """Values; first derivatives; second derivatives, also by the cotangents; along random directions."""
    draw = Draw(seed)
    inputs = [
        t.detach().clone().requires_grad_(ask) for t, ask in zip(case.operands, case.asking, strict=True)
    ]
    if any(t.stride() != c.stride() for t, c in zip(inputs, case.operands, strict=True)):
        raise RuntimeError("clone changed the strides, so strided operands are not tested")
    output = function(*inputs, *case.others)
    output = output if isinstance(output, tuple) else (output,)
    floating = [v for v in output if v.is_floating_point()]
    results = {f"value {k}": v for k, v in enumerate(output)}
    asked = [t for t in inputs if t.requires_grad]
    # a constant, as harmonics of degree 0 are, has derivatives too
    floating = [v + 0 * sum(t.sum() for t in asked) for v in floating]
    cotangents = [draw.normal(*v.shape).to(v).requires_grad_() for v in floating]
    first = torch.autograd.grad(floating, asked, cotangents, create_graph=True)
    results |= {f"first {k}": v for k, v in enumerate(first)}
    along = sum((g * draw.normal(*g.shape).to(g)).sum() for g in first)
    asked += cotangents
    second = torch.autograd.grad(along, asked, allow_unused=True)
    for k, (value, operand) in enumerate(zip(second, asked, strict=True)):
        results[f"second {k}"] = torch.zeros_like(operand) if value is None else value
    return {name: value.detach() for name, value in results.items()}


def assert_same(compiled: Callable[..., Any], reference: Callable[..., Any], case: Case) -> None:
    """The compiled operator gives the numbers of the reference, which runs in float64."""
    got, expected = derivatives(compiled, case), derivatives(reference, case.to(torch.float64))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        if not value.is_floating_point():
            assert torch.equal(got[name], value), name
            continue
        assert got[name].dtype == case.dtype, name
        if value.numel():
            difference, scale = float((got[name].double() - value).abs().max()), float(value.abs().max())
            assert difference <= TOLERANCE[case.dtype] * max(scale, 1.0), (name, difference, scale)
