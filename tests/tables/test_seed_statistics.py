"""Means, deviations and paired differences, against NumPy and by hand."""

import math

import numpy as np
import pytest

from fedbench.tables.numbers import PERCENT, Number
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


def test_two_standard_errors_are_the_border() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])  # mean 2, standard error 1/sqrt(3)
    border = 2 + 2 / math.sqrt(3)
    assert spread.holds(border - 1e-6) is True
    assert spread.holds(border + 1e-6) is False


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
    b = {seed: value - 0.01 - 0.001 * seed for seed, value in a.items()}
    assert paired(a, b).zero_is_within is False
    assert Spread.of(a.values()).holds(Spread.of(b.values()).mean) is True


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({0: 0.9}, {0: 0.8}, "nothing can be said"),
        ({0: 0.9}, {1: 0.8}, "no seed in common"),
        ({0: 0.9, 1: 0.7}, {0: 0.8, 1: 0.8}, "not told apart from zero"),
        ({0: 0.9, 1: 0.91}, {0: 0.8, 1: 0.8}, "differs from zero by more than 2 standard errors"),
    ],
)
def test_the_words_claim_no_more_than_the_seeds_allow(a: dict[int, float], b: dict[int, float], words: str) -> None:
    assert words in paired(a, b).words(PERCENT)


def test_numbers_keep_three_digits_of_the_smallest_value() -> None:
    number = Number.fitting([0.0, 3.2e-3, 17.0, math.nan], 1.0, "GB")
    assert number.show(3.2e-3) == "0.00320 GB"
    assert Number.fitting([]).digits == 2
    assert Number(1).bare(1234567.0) == "1,234,567.0"


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert Number(2).signed(-0.001) == "0.00"
    assert Number(2).signed(-0.01) == "-0.01"
    assert Number(0, 100).signed(0.25) == "+25"
