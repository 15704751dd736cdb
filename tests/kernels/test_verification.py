from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from operators import edge_case, linear_case, message_case, sphere_case

from mlip.kernels import library, reference, self_test
from mlip.kernels.edge_basis import edge_basis
from mlip.kernels.linear import linear
from mlip.kernels.message import message
from mlip.kernels.sphere_product import sphere_product
from mlip.kernels.verification import TOLERANCE, KernelMismatch, verify

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture(autouse=True)
def not_yet_verified() -> Iterator[None]:
    library.usable.cache_clear()
    yield
    library.usable.cache_clear()


def test_all_kernels_pass(each_instruction_set: str) -> None:
    result = self_test()
    assert result["ok"]
    assert result["instruction_set"] == each_instruction_set
    tested = {(r["kernel"], r["dtype"]) for r in result["kernels"]}
    names = {"message", "message of scalars", "sphere_product", "edge_basis", "linear", "project"}
    names |= {"message on dual numbers", "sphere_product on dual numbers"}
    names |= {"pairs of a Hessian", "Hessians of structures"}
    assert tested == {(name, dtype) for name in names for dtype in ("float32", "float64")}
    for r in result["kernels"]:
        # a linear map may add in the order of the reference
        assert r["difference"] > 0 or r["kernel"] in ("linear", "project")
        assert r["difference"] <= r["tolerance"] == TOLERANCE[getattr(torch, r["dtype"])]


class Doubled(torch.autograd.Function):
    """Right values, wrong derivatives."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return 1.01 * g


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    """Change the first result."""
    return lambda out: (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)


BREAKS = {
    "values": first(lambda z: z * 1.001),
    "one number": first(lambda z: z + 1.0 * (torch.arange(z.numel()).view(z.shape) == 3)),
    "derivatives": first(Doubled.apply),
    "not a number": first(
        lambda z: (
            torch.where(torch.arange(z.numel()).view(z.shape) == 3, torch.nan, z.detach()) + z - z.detach()
        )
    ),
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("name", ["message", "sphere_product", "edge_basis", "linear", "project"])
def test_a_difference_is_found(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(reference, name)
    monkeypatch.setattr(reference, name, lambda *operands: BREAKS[how](right(*operands)))
    result = self_test()
    wrong = [r for r in result["kernels"] if not r["ok"]]
    assert not result["ok"]
    assert {r["dtype"] for r in wrong} == {"float32", "float64"}
    assert {r["kernel"].split()[0] for r in wrong} == {name}
    with pytest.raises(KernelMismatch) as error:
        verify()
    shown, first_wrong = str(error.value), wrong[0]
    kernel = f"the compiled kernel {first_wrong['kernel']} (float32, {library.instruction_set()})"
    assert f"{kernel} gives {first_wrong['compiled']!r} where" in shown
    assert f"where the reference gives {first_wrong['reference']!r}; please report" in shown
    assert "mlip doctor" in shown


@pytest.mark.parametrize(
    ("operator", "case"),
    [
        (message, message_case()),
        (sphere_product, sphere_case()),
        (edge_basis, edge_case()),
        (linear, linear_case()),
    ],
    ids=["message", "sphere_product", "edge_basis", "linear"],
)
def test_first_use_is_refused_each_time(operator: Any, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference.edge_basis
    monkeypatch.setattr(reference, "edge_basis", lambda *operands: BREAKS["values"](right(*operands)))
    for _ in range(2):
        with pytest.raises(KernelMismatch, match=r"the compiled kernel edge_basis \(float32, "):
            operator(*case.operands, *case.others)
    monkeypatch.undo()
    operator(*case.operands, *case.others)


def test_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = message_case()
    message(*case.operands, *case.others)

    def unexpected(*operands: Any) -> None:
        raise RuntimeError("the reference was called again")

    monkeypatch.setattr(reference, "message", unexpected)
    message(*case.operands, *case.others)
