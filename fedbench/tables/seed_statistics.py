"""One quantity over several seeds: mean, deviation, interval and test, and differences of methods seed by seed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

LEVEL = 0.95
"""The confidence of every interval: so often such an interval holds the true mean of normally distributed values."""

FEWEST_SEEDS = 3
"""The fewest values from which anything is concluded: the spread of two says little of how far chance reaches."""

INTERVAL = f"{LEVEL:.0%} interval".replace("%", " %")
"""The name of these intervals in tables."""


@lru_cache
def quantile_of_student(degrees: int) -> float:
    """The multiple of the standard error that an interval of confidence `LEVEL` reaches to either side of the mean.

    It is the quantile at (1 + LEVEL) / 2 of Student's t distribution.

    Args:
        degrees: degrees of freedom, at least 1: the number of values less one.

    >>> round(quantile_of_student(2), 3), round(quantile_of_student(1000), 3)
    (4.303, 1.962)
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


@dataclass(frozen=True)
class Spread:
    """One quantity's values over seeds.

    >>> spread = Spread.of([1.0, 2.0, 3.0])
    >>> spread.n, spread.mean, spread.std, round(spread.standard_error, 3)
    (3, 2.0, 1.0, 0.577)
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of these values, in their order."""
        return cls(tuple(float(value) for value in values))

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean of the values; NaN where there are none."""
        return math.fsum(self.values) / self.n if self.n else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the population that they are a sample of (divided by n - 1); NaN for fewer than two."""
        if self.n < 2:
            return math.nan
        mean = self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (self.n - 1))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for fewer than two values."""
        return self.std / math.sqrt(self.n) if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's interval of confidence `LEVEL` for the mean; None for fewer than two values, or one not finite.

        >>> low, high = Spread.of([1.0, 2.0, 3.0]).interval
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
        """
        if self.n < 2 or not math.isfinite(self.standard_error):
            return None
        reach = quantile_of_student(self.n - 1) * self.standard_error
        return self.mean - reach, self.mean + reach

    def p_value(self, figure: float) -> float | None:
        """The two-sided p-value of Student's t test that `figure` is the true mean.

        Values that are all the same show no deviation to judge by: accuracies on a small test set often are, since they
        are multiples of one over its size.

        Returns:
            The value, 0..1; None for fewer than `FEWEST_SEEDS` values, one not finite, or equal ones that differ from
            `figure`.

        >>> round(Spread.of([1.0, 2.0, 3.0]).p_value(0.0), 4)
        0.0742
        """
        if self.n < FEWEST_SEEDS or not math.isfinite(self.standard_error):
            return None
        distance = abs(self.mean - figure)
        # Equal values have a deviation of zero; rounding must not count.
        if distance <= 1e-12 * max(abs(self.mean), abs(figure)):
            return 1.0
        if self.std <= 1e-9 * max(map(abs, self.values)):
            return None
        from scipy.special import stdtr

        return min(1.0, 2 * float(stdtr(self.n - 1, -distance / self.standard_error)))


@dataclass(frozen=True)
class Paired:
    """The differences of two methods, seed by seed.

    Attributes:
        difference: first minus second, over the common seeds, in the order of `seeds`.
        seeds: the seeds that both have, ascending.
        unpaired: the seeds that only one of them has, left out.
    """

    difference: Spread
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]

    @property
    def p_value(self) -> float | None:
        """The p-value of the paired t test that the mean difference is zero; None for fewer than `FEWEST_SEEDS`."""
        return self.difference.p_value(0.0)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """The differences a - b over the seeds that both have.

    Args:
        a: {seed: value} of one method.
        b: {seed: value} of the other.
    """
    common = tuple(sorted(a.keys() & b.keys()))
    return Paired(Spread.of(a[seed] - b[seed] for seed in common), common, tuple(sorted(a.keys() ^ b.keys())))
