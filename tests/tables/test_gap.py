"""The share of a gap and its interval: against Student's t itself, limiting cases, and how often it holds the truth."""

import numpy as np
import pytest
from scipy import stats

from fedbench.tables.gap import gap_share, shares_within

Values = dict[int, float]
METHOD, FLOOR, CEILING = (
    {0: 0.71, 1: 0.74, 2: 0.69, 3: 0.75},
    {0: 0.52, 1: 0.50, 2: 0.49, 3: 0.55},
    {0: 0.93, 1: 0.91, 2: 0.94, 3: 0.92},
)


def test_at_the_ends_of_the_interval_students_t_just_tells_apart() -> None:
    closed = gap_share(METHOD, FLOOR, CEILING)
    a, b = (np.array([of[seed] - FLOOR[seed] for seed in FLOOR]) for of in (METHOD, CEILING))
    assert closed.share == pytest.approx(a.mean() / b.mean())
    assert closed.interval is not None
    assert closed.interval[0] < closed.share < closed.interval[1]  # type: ignore[operator]
    for end in closed.interval:
        assert stats.ttest_1samp(a - end * b, 0.0).pvalue == pytest.approx(0.05)


def test_the_references_themselves_close_all_and_nothing() -> None:
    assert gap_share(CEILING, FLOOR, CEILING).share == 1.0
    assert gap_share(CEILING, FLOOR, CEILING).interval == pytest.approx((1.0, 1.0))
    assert gap_share(FLOOR, FLOOR, CEILING).share == 0.0


@pytest.mark.parametrize(
    ("floor", "ceiling", "reason"),
    [
        (CEILING, FLOOR, "no gap"),
        (FLOOR, FLOOR, "no gap"),
        ({0: 0.5, 1: 0.6, 2: 0.7, 3: 0.5}, {0: 0.6, 1: 0.5, 2: 0.9, 3: 0.5}, "gap not told apart"),
        ({0: 0.5, 1: 0.6}, CEILING, "too few seeds"),
        ({7: 0.5, 8: 0.6, 9: 0.5}, CEILING, "too few seeds"),
    ],
)
def test_there_is_no_share_of_a_gap_that_is_not_shown(floor: Values, ceiling: Values, reason: str) -> None:
    closed = gap_share(METHOD, floor, ceiling)
    assert (closed.share, closed.interval, closed.words) == (None, None, reason)


def test_the_interval_holds_the_true_share_as_often_as_it_says() -> None:
    rng, held, draws = np.random.default_rng(0), 0, 2000
    for _ in range(draws):
        floor, ceiling, method = (mean + 0.01 * rng.standard_normal(4) for mean in (0.5, 0.7, 0.65))
        closed = gap_share(*(dict(enumerate(values)) for values in (method, floor, ceiling)))
        assert closed.interval is not None
        held += closed.interval[0] <= 0.75 <= closed.interval[1]
    assert abs(held / draws - 0.95) < 0.02


def test_both_references_are_needed() -> None:
    values = {"A": METHOD, "B": FLOOR, "C": CEILING}
    assert shares_within({"A": "fedavg", "B": "local", "C": "fedprox"}, values) == {}
    shares = shares_within({"A": "fedavg", "B": "local", "C": "centralised"}, values)
    assert {key: share.words for key, share in shares.items() if key != "A"} == {"B": "the floor", "C": "the ceiling"}
    assert shares["A"] == gap_share(METHOD, FLOOR, CEILING)


def test_of_a_metric_of_which_less_is_better_the_same_share_is_closed() -> None:
    """Perplexity falls from local to centralised training; mirrored values have the same share and interval."""
    mirrored = [{seed: 10 - 5 * value for seed, value in of.items()} for of in (METHOD, FLOOR, CEILING)]
    closed, expected = gap_share(*mirrored, higher_is_better=False), gap_share(METHOD, FLOOR, CEILING)
    assert closed.share == pytest.approx(expected.share)
    assert closed.interval == pytest.approx(expected.interval)
    assert gap_share(*mirrored).words == "no gap"
    assert gap_share(METHOD, FLOOR, CEILING, higher_is_better=False).words == "no gap"
    named = dict(zip("ABC", mirrored, strict=True))
    algorithms = {"A": "fedavg", "B": "local", "C": "centralised"}
    assert shares_within(algorithms, named, higher_is_better=False)["A"] == closed
