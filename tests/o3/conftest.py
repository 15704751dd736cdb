from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """For references that keep their constants in the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
