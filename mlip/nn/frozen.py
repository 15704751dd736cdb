"""What depends on weights alone is computed once while the weights are frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


class FrozenCache:
    """Keeps the last result of a function of weights until a weight is changed, moved or unfrozen."""

    def __init__(self) -> None:
        self._key: tuple[tuple[int, int], ...] | None = None
        self._value: Tensor | None = None

    def get(self, weights: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, or its last result if none of `weights` requires a gradient or has changed since."""
        if any(w.requires_grad or isinstance(w, FakeTensor) for w in weights):
            self._key = self._value = None
            return compute()
        key = tuple((w.data_ptr(), w._version) for w in weights)
        if self._value is None or key != self._key:
            with torch.no_grad():
                self._key, self._value = key, compute()
        return self._value

    def __getstate__(self) -> dict[str, None]:
        return {"_key": None, "_value": None}

    def __deepcopy__(self, memo: object) -> FrozenCache:
        return FrozenCache()
