"""Axes of charts have their values between their ends, whatever the size of these."""

import pytest

from fedbench.report.svg_axes import around


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -7e20, 3e29])
def test_values_that_are_as_good_as_equal_stand_within_the_axis(value: float) -> None:
    for high in (value, value + 1e-12 * abs(value)):
        scale = around(value, high, 100.0, 0.0, 5)
        assert scale.low < value < scale.high
        assert 0 < scale.place(high) < 100
        assert 2 <= len(scale.ticks) <= 12
