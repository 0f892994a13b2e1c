"""Means, deviations, tests and paired differences, against NumPy, SciPy and by hand."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

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
    assert spread.p_value(0.0) is None


def test_no_values_have_no_mean() -> None:
    assert math.isnan(Spread.of([]).mean)
    assert Spread.of([]).p_value(0.0) is None


def test_the_interval_of_three_seeds_reaches_4_303_standard_errors() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])  # mean 2, standard error 1/sqrt(3); 4.303: printed tables of Student's t
    border = 2 + 4.302653 / math.sqrt(3)
    assert spread.interval == pytest.approx((4 - border, border), rel=1e-6)
    assert spread.p_value(border) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("seeds", [3, 4, 10])
def test_p_values_are_scipys(seeds: int) -> None:
    a, b = np.random.default_rng(seeds).normal(0.3, 1.0, (2, seeds))
    assert Spread.of(a).p_value(0.1) == pytest.approx(ttest_1samp(a, 0.1).pvalue, rel=1e-9)
    found = paired(dict(enumerate(a)), dict(enumerate(b)))
    assert found.p_value == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-9)


@pytest.mark.parametrize("values", [(), (0.9,), (0.9, 0.5)])
def test_fewer_than_three_seeds_have_no_p_value(values: tuple[float, ...]) -> None:
    assert Spread.of(values).p_value(0.0) is None
    assert Spread.of((*values, math.nan)).p_value(0.0) is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_true_mean_is_denied_in_one_of_twenty_samples(seeds: int) -> None:
    samples = np.random.default_rng(seeds).normal(0.0, 1.0, (4000, seeds))
    missed = np.mean([(Spread.of(sample).p_value(0.0) or 0) <= 0.05 for sample in samples])
    assert missed == pytest.approx(0.05, abs=0.014)  # four standard errors of such a share


def test_equal_values_are_themselves_whatever_the_rounding() -> None:
    thirds = Spread.of([0.1 + 0.2] * 3)
    assert thirds.p_value(0.3) == 1
    assert thirds.p_value(0.3001) is None


def test_equal_differences_show_no_deviation_to_judge_by() -> None:
    """Accuracies on 359 images, three less in each of three seeds: by rounding the differences are not quite equal."""
    a, b = ([count / 359 * 100 for count in counts] for counts in ((355, 350, 352), (352, 347, 349)))
    differences = Spread.of(x - y for x, y in zip(a, b, strict=True))
    assert differences.p_value(0.0) is None
    assert Spread.of([*differences.values, 0.5]).p_value(0.0) is not None


def test_differences_are_taken_seed_by_seed_over_the_common_seeds() -> None:
    found = paired({2: 0.5, 0: 0.9, 7: 0.1}, {0: 0.7, 2: 0.6, 5: 0.0})
    assert found.seeds == (0, 2)
    assert found.unpaired == (5, 7)
    assert found.difference.values == pytest.approx((0.2, -0.1))
    assert found.p_value is None  # two seeds


def test_pairing_finds_a_difference_that_the_spread_over_seeds_would_hide() -> None:
    a = {0: 0.50, 1: 0.60, 2: 0.70}
    b = {seed: value - 0.01 - 0.0001 * seed for seed, value in a.items()}
    assert (paired(a, b).p_value or 1) < 0.01
    assert (Spread.of(a.values()).p_value(Spread.of(b.values()).mean) or 0) > 0.5


def test_numbers_keep_three_digits_of_the_smallest_value() -> None:
    number = Number.fitting([0.0, 3.2e-3, 17.0, math.nan], 1.0, "GB")
    assert number.show(3.2e-3) == "0.00320 GB"
    assert Number.fitting([]).digits == 2
    assert Number(1).bare(1234567.0) == "1,234,567.0"


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert Number(2).signed(-0.001) == "0.00"
    assert Number(2).signed(-0.01) == "-0.01"
    assert Number(0, 100).signed(0.25) == "+25"
