"""Operators of exported models, `mlip_engine::*`: those of `mlip::*` under a name that an engine can claim.

An engine registers its own kernels for them, in C++. The operators of Python keep theirs, whichever of the
two comes first into a process. Here, without an engine, they run the kernels of Python.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import torch
from torch.fx import GraphModule

NAMESPACE: Final = "mlip_engine"

NAMES: Final = (
    "edge_basis",
    "edge_basis_backward",
    "linear",
    "project",
    "message",
    "message_backward",
    "sphere_product",
    "sphere_product_backward",
    "halo",
    "halo_adjoint",
)
"""What an engine has kernels for."""


def _original(name: str) -> Any:
    return getattr(torch.ops.mlip, name).default


def _forward(name: str, library: torch.library.Library) -> None:
    """Define one operator that calls the original of that name."""

    def call(*arguments: Any) -> Any:
        return _original(name)(*arguments)

    qualified = f"{NAMESPACE}::{name}"
    if not torch._C._dispatch_has_kernel(qualified):
        schema = str(_original(name)._schema).removeprefix("mlip::")
        library.define(schema)
        library.impl(name, call, "CPU")
    torch.library.register_fake(qualified, call, lib=library)


@lru_cache(maxsize=1)
def define() -> torch.library.Library:
    """Define the operators once; where an engine did already, only what tracing needs is added."""
    import mlip.kernels.edge_basis
    import mlip.kernels.halo
    import mlip.kernels.linear
    import mlip.kernels.message
    import mlip.kernels.sphere_product  # noqa: F401

    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    for name in NAMES:
        _forward(name, library)
    return library


def claim(graph: GraphModule) -> GraphModule:
    """Put the engine's operators in the place of Python's.

    Raises:
        RuntimeError: the graph holds an operator that engines have no kernel for.
    """
    define()
    for node in graph.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        namespace, _, name = node.target._schema.name.partition("::")
        if namespace != "mlip":
            continue
        if name not in NAMES:
            raise RuntimeError(f"engines have no kernel for the operator mlip::{name}")
        node.target = getattr(getattr(torch.ops, NAMESPACE), name).default
    graph.recompile()
    return graph
