"""What depends on weights alone is computed once while the weights are frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def _lasting(tensor: Tensor) -> bool:
    """Whether this tensor means the same tomorrow: not one of a tracer or of inference mode."""
    return not (isinstance(tensor, FakeTensor) or tensor.is_inference())


class FrozenCache:
    """Keeps the last result of a function of weights until a weight is changed, moved or unfrozen."""

    def __init__(self) -> None:
        self._key: tuple[tuple[int, int], ...] | None = None
        self._value: Tensor | None = None
        self._weights: list[Tensor] = []
        """Held, so that no other tensor can take their place in memory and look like them."""

    def get(self, weights: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, or its last result if none of `weights` requires a gradient or has changed since."""
        if any(w.requires_grad or not _lasting(w) for w in weights):
            self._key, self._value, self._weights = None, None, []
            return compute()
        key = tuple((w.data_ptr(), w._version) for w in weights)
        if self._value is None or key != self._key:
            with torch.no_grad():
                value = compute()
            if not _lasting(value):
                return value
            self._key, self._value, self._weights = key, value, [w.detach() for w in weights]
        return self._value

    def __getstate__(self) -> dict[str, object]:
        return {"_key": None, "_value": None, "_weights": []}

    def __deepcopy__(self, memo: object) -> FrozenCache:
        return FrozenCache()
