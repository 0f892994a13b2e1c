"""Means, deviations and paired differences, against NumPy and by hand."""

import math

import numpy as np
import pytest

from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import Spread, paired

VALUES = [0.91, 0.87, 0.935, 0.902]


def test_mean_and_deviation_are_numpys_of_a_sample() -> None:
    spread = Spread.of(VALUES)
    assert spread.n == 4
    assert spread.mean == pytest.approx(np.mean(VALUES), rel=1e-15)
    assert spread.std == pytest.approx(np.std(VALUES, ddof=1), rel=1e-12)
    assert spread.standard_error == pytest.approx(np.std(VALUES, ddof=1) / 2, rel=1e-12)


def test_one_value_has_no_deviation_and_judges_nothing() -> None:
    spread = Spread.of([0.9])
    assert spread.mean == 0.9
    assert math.isnan(spread.std)
    assert math.isnan(spread.standard_error)
    assert spread.holds(0.9) is None


def test_no_values_have_no_mean() -> None:
    assert math.isnan(Spread.of([]).mean)
    assert Spread.of([]).holds(0.0) is None


def test_the_interval_of_three_seeds_reaches_4_303_standard_errors() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])  # mean 2, standard error 1/sqrt(3); 4.303: printed tables of Student's t
    border = 2 + 4.302653 / math.sqrt(3)
    assert spread.interval == pytest.approx((4 - border, border), rel=1e-6)
    assert spread.holds(border - 1e-6) is True
    assert spread.holds(border + 1e-6) is False


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_misses_the_true_mean_in_one_of_twenty_samples(seeds: int) -> None:
    samples = np.random.default_rng(seeds).normal(0.0, 1.0, (4000, seeds))
    missed = np.mean([Spread.of(sample).holds(0.0) is False for sample in samples])
    assert missed == pytest.approx(0.05, abs=0.014)  # four standard errors of such a share


def test_equal_values_hold_themselves_whatever_the_rounding() -> None:
    thirds = Spread.of([0.1 + 0.2] * 3)
    assert thirds.holds(0.3) is True
    assert thirds.holds(0.3001) is False


def test_differences_are_taken_seed_by_seed_over_the_common_seeds() -> None:
    found = paired({2: 0.5, 0: 0.9, 7: 0.1}, {0: 0.7, 2: 0.6, 5: 0.0})
    assert found.seeds == (0, 2)
    assert found.unpaired == (5, 7)
    assert found.difference.values == pytest.approx((0.2, -0.1))
    assert found.zero_is_within is True


def test_pairing_finds_a_difference_that_the_spread_over_seeds_would_hide() -> None:
    a = {0: 0.50, 1: 0.60, 2: 0.70}
    b = {seed: value - 0.01 - 0.0001 * seed for seed, value in a.items()}
    assert paired(a, b).zero_is_within is False
    assert Spread.of(a.values()).holds(Spread.of(b.values()).mean) is True


def test_numbers_keep_three_digits_of_the_smallest_value() -> None:
    number = Number.fitting([0.0, 3.2e-3, 17.0, math.nan], 1.0, "GB")
    assert number.show(3.2e-3) == "0.00320 GB"
    assert Number.fitting([]).digits == 2
    assert Number(1).bare(1234567.0) == "1,234,567.0"


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert Number(2).signed(-0.001) == "0.00"
    assert Number(2).signed(-0.01) == "-0.01"
    assert Number(0, 100).signed(0.25) == "+25"
