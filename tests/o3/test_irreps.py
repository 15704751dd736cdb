import pytest

from mlip.errors import InputError
from mlip.o3 import Irreps


def test_parse_and_layout():
    irreps = Irreps.parse("16x0e + 8x1o+2e")
    assert list(irreps) == [(16, 0, 1), (8, 1, -1), (1, 2, 1)]
    assert irreps.dim == 16 + 24 + 5
    assert irreps.slices == (slice(0, 16), slice(16, 40), slice(40, 45))
    assert irreps.lmax == 2
    assert str(irreps) == "16x0e+8x1o+1x2e"
    assert Irreps.parse(str(irreps)) == irreps


def test_spherical_has_natural_parity():
    assert str(Irreps.spherical(3, 4)) == "4x0e+4x1o+4x2e+4x3o"
    assert Irreps.spherical(3).dim == 16
    assert Irreps.spherical(3).is_natural
    assert not Irreps.parse("1e").is_natural


def test_empty():
    assert Irreps.parse("").dim == 0
    with pytest.raises(InputError, match="empty and has no largest degree"):
        _ = Irreps.parse("").lmax


@pytest.mark.parametrize("text", ["16x0", "0e++1o", "x1o", "1.5x0e", "0e,1o"])
def test_refuses_other_text(text):
    with pytest.raises(InputError, match="a term is written like 16x1o"):
        Irreps.parse(text)


def test_refuses_negative_degree():
    with pytest.raises(InputError, match="`lmax` is -1 but must be at least 0"):
        Irreps.spherical(-1)
