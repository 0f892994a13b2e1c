"""One quantity over several seeds: mean and standard deviation, and differences of two methods seed by seed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from fedbench.tables.numbers import Number

ERRORS = 2
"""A difference of at most this many standard errors is not told apart from none."""


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

    def holds(self, figure: float) -> bool | None:
        """Whether `figure` lies within two standard errors of the mean; None where there is no error to judge by."""
        if self.n < 2 or not math.isfinite(self.standard_error):
            return None
        # Equal values have an error of zero; rounding of their mean must not count.
        slack = 1e-12 * max(abs(self.mean), abs(figure))
        return abs(self.mean - figure) <= ERRORS * self.standard_error + slack


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
    def zero_is_within(self) -> bool | None:
        """Whether zero lies within two standard errors of the mean difference; None for fewer than two seeds."""
        return self.difference.holds(0.0)

    def words(self, number: Number) -> str:
        """The mean difference, its standard error, and what they say.

        >>> paired({0: 0.9, 1: 0.92}, {0: 0.8, 1: 0.8, 2: 0.7}).words(Number(1, 100, "points"))
        '+11.0 ± 1.0 points (standard error, 2 common seeds): differs from zero by more than 2 standard errors'
        """
        count, mean = self.difference.n, number.signed(self.difference.mean)
        if count == 0:
            return "no seed in common, so no difference"
        if count == 1:
            with_unit = f"{mean} {number.unit}".rstrip()
            return f"{with_unit} (seed {self.seeds[0]} alone): one seed has no standard error, so nothing can be said"
        error = f"{number.unsigned(self.difference.standard_error)} {number.unit}".rstrip()
        shown = f"{mean} ± {error} (standard error, {count} common seeds)"
        if self.zero_is_within is None:
            return f"{shown}: cannot be judged"
        verdict = "not told apart from zero at" if self.zero_is_within else "differs from zero by more than"
        return f"{shown}: {verdict} {ERRORS} standard errors"


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired:
    """The differences a - b over the seeds that both have.

    Args:
        a: {seed: value} of one method.
        b: {seed: value} of the other.
    """
    common = tuple(sorted(a.keys() & b.keys()))
    return Paired(Spread.of(a[seed] - b[seed] for seed in common), common, tuple(sorted(a.keys() ^ b.keys())))
