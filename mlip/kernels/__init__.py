"""Fused kernels: each in plain PyTorch (the oracle, `reference`) and in C++ (`src`).

`message` sums factored messages over edges, `sphere_product` makes many-body products on nodes,
`linear` maps channels and components, `edge_basis` evaluates harmonics and radial splines. The compiled
kernels are compared with the reference at their first use in a process; a mismatch is an error.
"""

from __future__ import annotations

from typing import Any


def self_test() -> dict[str, Any]:
    """Compare every compiled kernel with its reference; see `mlip.kernels.verification.self_test`."""
    from mlip.kernels.verification import self_test as run

    return run()
