"""What a study's measurements say: exponents in T for each series, and in M, N and K at the longest horizon."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from fedbench.analysis.convergence.series import Measurement, Series
from fedbench.analysis.convergence.slopes import Slope, slope_over_seeds
from fedbench.analysis.convergence.theory import RATE
from fedbench.tables.comparisons import judged_together
from fedbench.tables.seed_statistics import Spread

Quantity = Literal["whole", "masked"]
"""||grad f||^2 or ||S_t * grad f||^2, in the mean over the iterations."""


@dataclass(frozen=True)
class HorizonSlope:
    """A quantity of one series against T.

    Attributes:
        series: the series.
        quantity: which mean it is.
        slope: its exponent over the fitted horizons.
        at_longest: its values at the longest horizon, one a seed.
        bound: the bound with its constants at the longest horizon; None where it is not known.
        is_below: whether the mean over seeds is below the bound at every horizon; None where it is not known.
        capped: whether the step size was capped at some fitted horizon, so that it does not fall as 1 / sqrt(T) there.
        against: "T".
    """

    series: Series
    quantity: Quantity
    slope: Slope
    at_longest: Spread
    bound: float | None
    is_below: bool | None
    capped: bool
    against: str = "T"

    @property
    def problem(self) -> str:
        """Name of the problem."""
        return self.series.problem

    @property
    def label(self) -> str:
        """The series, in words."""
        return self.series.label


@dataclass(frozen=True)
class CountSlope:
    """A quantity at the longest horizon against M, N or K, over series that differ in this alone.

    Attributes:
        problem: name of the problem.
        against: "M", "N" or "K", which is varied.
        counts: the values of M, N or K, ascending.
        label: what is the same in all of the series, in words.
        quantity: which mean it is.
        slope: its exponent.
    """

    problem: str
    against: Literal["M", "N", "K"]
    counts: tuple[int, ...]
    label: str
    quantity: Quantity
    slope: Slope


@dataclass(frozen=True)
class DelayRecord:
    """The delays of an asynchronous series over all of its runs.

    Attributes:
        series: the series.
        largest: the largest delay of all, in arrivals.
        longest: the longest horizon T.
        mean: mean delay at the longest horizon.
        share: the largest of (sum of delays) / ((K - 1) T) over all runs; the theorem needs 1 at most.
    """

    series: Series
    largest: int
    longest: int
    mean: float
    share: float


def by_series(measurements: Sequence[Measurement]) -> dict[Series, list[Measurement]]:
    """The measurements of each series, in the order in which the series come."""
    grouped: dict[Series, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        grouped[measurement.series].append(measurement)
    return dict(grouped)


def value_of(measurement: Measurement, quantity: Quantity) -> float:
    """The quantity of a measurement that has it."""
    value = measurement.whole if quantity == "whole" else measurement.masked
    assert value is not None
    return value


def bounded_quantity(series: Series) -> Quantity:
    """The quantity that the series' theorem bounds."""
    return "masked" if series.groups > 1 else "whole"


def horizon_slope(
    measurements: Sequence[Measurement], quantity: Quantity, fitted_from: int, expected: float | None
) -> HorizonSlope:
    """The slope against T of one series.

    Args:
        measurements: all of the series.
        quantity: which mean.
        fitted_from: the smallest horizon over which the line is fitted.
        expected: the exponent of the theorem for this quantity; None where no theorem speaks of it.
    """
    by_seed: dict[int, dict[float, float]] = defaultdict(dict)
    by_horizon: dict[int, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        by_seed[measurement.seed][measurement.horizon] = value_of(measurement, quantity)
        by_horizon[measurement.horizon].append(measurement)
    longest = by_horizon[max(by_horizon)]
    bounds = {horizon: group[0].bound for horizon, group in by_horizon.items()} if expected is not None else {}
    means = {
        horizon: Spread.of(value_of(measurement, quantity) for measurement in group).mean
        for horizon, group in by_horizon.items()
    }
    below = [means[horizon] <= bound for horizon, bound in bounds.items() if bound is not None]
    return HorizonSlope(
        measurements[0].series,
        quantity,
        slope_over_seeds(by_seed, expected, fitted_from),
        Spread.of(value_of(measurement, quantity) for measurement in longest),
        bounds.get(max(by_horizon)),
        all(below) if below else None,
        any(measurement.capped for measurement in measurements if measurement.horizon >= fitted_from),
    )


AnySlope = TypeVar("AnySlope", HorizonSlope, CountSlope)


def read_together(slopes: Sequence[AnySlope]) -> list[AnySlope]:
    """The slopes of one table, each judged beside its theorem with the correction for all of them."""
    judgements = judged_together({place: slope.slope.p_value for place, slope in enumerate(slopes)})
    return [
        replace(slope, slope=replace(slope.slope, judgement=judgements[place])) for place, slope in enumerate(slopes)
    ]


def count_slopes(measurements: Iterable[Measurement]) -> list[CountSlope]:
    """The slopes against M, N and K on one problem.

    Args:
        measurements: all of one problem at its longest horizon.
    """
    plain = [measured for measured in measurements if measured.series.steps == 1 and measured.series.delays == "gamma"]
    rounds = [measured for measured in plain if measured.series.workers is None]
    arrivals = [measured for measured in plain if measured.series.workers is not None]
    candidates = [
        _count_slope(
            [m for m in rounds if m.series.clients == 4], "M", "N=4", "masked", lambda series: series.groups, RATE
        ),
        _count_slope(
            [m for m in rounds if m.series.groups == 1], "N", "M=1", "whole", lambda series: series.clients, RATE
        ),
        _count_slope(
            [m for m in rounds if m.series.groups == 4], "N", "M=4", "masked", lambda series: series.clients, RATE
        ),
        _count_slope(arrivals, "K", "OrMo", "whole", lambda series: series.workers or 0, None),
    ]
    return [slope for slope in candidates if slope is not None]


def _count_slope(
    measurements: Sequence[Measurement],
    against: Literal["M", "N", "K"],
    label: str,
    quantity: Quantity,
    count: Callable[[Series], int],
    expected: float | None,
) -> CountSlope | None:
    """One slope; None where fewer than two counts were run."""
    by_seed: dict[int, dict[float, float]] = defaultdict(dict)
    for measurement in measurements:
        by_seed[measurement.seed][count(measurement.series)] = value_of(measurement, quantity)
    counts = tuple(sorted({count(measurement.series) for measurement in measurements}))
    if len(counts) < 2:
        return None
    slope = slope_over_seeds(by_seed, expected)
    return CountSlope(measurements[0].series.problem, against, counts, label, quantity, slope)


def delay_record(measurements: Sequence[Measurement], workers: int) -> DelayRecord:
    """The delays of one asynchronous series.

    Args:
        measurements: all of the series.
        workers: K.
    """
    longest = max(measurement.horizon for measurement in measurements)
    sums = [measured.delay_sum or 0 for measured in measurements if measured.horizon == longest]
    return DelayRecord(
        measurements[0].series,
        max(measurement.largest_delay or 0 for measurement in measurements),
        longest,
        sum(sums) / (len(sums) * longest),
        max((measured.delay_sum or 0) / ((workers - 1) * measured.horizon) for measured in measurements),
    )
