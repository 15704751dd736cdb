from __future__ import annotations

import torch

from mlip.nn.linear import EquivariantLinear
from mlip.o3 import representation


def test_formula_and_symmetry() -> None:
    torch.manual_seed(0)
    linear = EquivariantLinear(2, 5, 3).double()
    x = torch.randn(4, 9, 5, dtype=torch.float64)
    got = linear(x)
    for l in range(3):
        for m in range(l * l, (l + 1) ** 2):
            torch.testing.assert_close(got[:, m], x[:, m] @ linear.weight[l] / 5**0.5)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    for orthogonal in (rotation, -rotation):
        d = representation(2, orthogonal)
        torch.testing.assert_close(linear(d @ x), d @ got)


def test_scalars() -> None:
    linear = EquivariantLinear(0, 4, 6)
    x = torch.randn(3, 1, 4)
    torch.testing.assert_close(linear(x), x @ linear.weight[0] / 2)
    assert linear(x[:0]).shape == (0, 1, 6)


def test_keeps_the_variance() -> None:
    torch.manual_seed(0)
    out = EquivariantLinear(1, 256, 256)(torch.randn(64, 4, 256))
    assert 0.9 < float(out.pow(2).mean()) < 1.1
