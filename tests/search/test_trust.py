"""The rule of the trust radius."""

from __future__ import annotations

import pytest

from mlip.search.trust import SMALLEST, TrustRegion, energy_change, for_minimum, for_saddle

DOWN = TrustRegion(radius=0.3, largest=0.6, two_sided=False)
UP = TrustRegion(radius=0.15, largest=0.3, two_sided=True)


@pytest.mark.parametrize(
    ("region", "quotient", "norm", "radius", "keep"),
    [
        (DOWN, 1.0, 0.3, 0.6, True),
        (DOWN, 2.0, 0.3, 0.6, True),
        (DOWN, 1.0, 0.1, 0.3, True),
        (DOWN, 0.5, 0.3, 0.3, True),
        (DOWN, 0.1, 0.3, 0.15, True),
        (DOWN, -1.0, 0.3, 0.1, False),
        (UP, 1.1, 0.15, 0.225, True),
        (UP, 1.9, 0.15, 0.075, True),
        (UP, 3.0, 0.15, 0.05, False),
    ],
)
def test_rule(region: TrustRegion, quotient: float, norm: float, radius: float, keep: bool) -> None:
    after, kept = region.after(predicted=-0.2, actual=-0.2 * quotient, norm=norm)
    assert after.radius == pytest.approx(radius)
    assert kept is keep
    assert (after.largest, after.two_sided) == (region.largest, region.two_sided)


def test_bounds() -> None:
    assert DOWN.after(predicted=-1.0, actual=-1.0, norm=0.3)[0].after(
        predicted=-1.0, actual=-1.0, norm=0.6
    )[0].radius == 0.6  # fmt: skip
    small = TrustRegion(radius=SMALLEST, largest=0.6, two_sided=False)
    after, kept = small.after(predicted=-1.0, actual=1.0, norm=SMALLEST)
    assert (after.radius, kept) == (SMALLEST, True)  # else noise would stop the search for good


def test_small_changes_are_read_from_the_gradients() -> None:
    noisy = {"energies": (0.0, 1e-3), "gradients_along": (-2e-5, 0.0)}
    assert energy_change(**noisy, predicted=-1e-5) == -1e-5
    assert energy_change(**noisy, predicted=-1e-3) == 1e-3


def test_radius_grows_with_the_molecule() -> None:
    assert for_minimum(100).radius > for_minimum(8).radius == 0.3
    assert for_saddle(4).radius == 0.15
