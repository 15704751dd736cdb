from collections.abc import Iterator

import pytest
import torch

from mlip.kernels import library


@pytest.fixture(scope="module", params=["generic", "avx2", "avx512"])
def each_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each build of the kernels that this machine runs."""
    before = library.instruction_set()
    try:
        library.set_instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    library.set_instruction_set(before)


@pytest.fixture
def compiled() -> None:
    """For tests that make sense with compiled kernels only."""
    if library.load_library() is None:
        pytest.skip("installed without compiled kernels")


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the package had been installed without compiled kernels."""
    monkeypatch.setattr(library, "library_path", lambda: None)
    library.load_library.cache_clear()
    library.usable.cache_clear()
    yield
    library.load_library.cache_clear()
    library.usable.cache_clear()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
