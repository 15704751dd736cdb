"""The gate is equivariant under all of O(3) and leaves scalars to SiLU."""

from __future__ import annotations

import pytest
import torch

from mlip.nn.gate import Gate
from mlip.o3 import representation


@pytest.mark.parametrize("lmax", [0, 1, 3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gate_commutes_with_rotations_and_reflections(lmax: int, sign: float) -> None:
    torch.manual_seed(1)
    gate = Gate(lmax, 6).double()
    x = torch.randn(5, (lmax + 1) ** 2, 6, dtype=torch.float64)
    orthogonal = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    orthogonal = orthogonal * torch.sign(torch.linalg.det(orthogonal)) * sign
    turn = representation(lmax, orthogonal)
    torch.testing.assert_close(gate(turn @ x), turn @ gate(x), rtol=1e-10, atol=1e-10)


def test_scalars_pass_through_silu_and_vectors_are_scaled() -> None:
    torch.manual_seed(2)
    gate = Gate(1, 4).double()
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    out = gate(x)
    torch.testing.assert_close(out[:, 0], torch.nn.functional.silu(x[:, 0]))
    ratio = out[:, 1:] / x[:, 1:]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert bool(((ratio > 0) & (ratio < 1)).all())
