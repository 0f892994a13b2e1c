"""The share of the gap between local and centralised training that a method closes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedbench.tables.comparisons import SIGNIFICANCE
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import FEWEST_SEEDS, INTERVAL, Spread, quantile_of_student

FLOOR, CEILING = "local", "centralised"
"""The names of the algorithms between which the gap lies."""

GAP_HEADING = "share of the gap (%)"
"""The heading of columns of such shares."""

_PERCENT = Number(1, 100)


@dataclass(frozen=True)
class GapShare:
    """The share of the gap that one method closes.

    Attributes:
        share: (method - floor) / (ceiling - floor), a quotient of means; None where none is given.
        interval: of confidence `LEVEL`; None where there is no share.
        reason: why there is no share, or what stands in its place; "" where there is one.
    """

    share: float | None
    interval: tuple[float, float] | None
    reason: str = ""

    @property
    def words(self) -> str:
        """The share in percent with its interval, or the reason why there is none.

        >>> GapShare(0.5, (0.25, 0.75)).words
        '50.0 (25.0 to 75.0)'
        """
        if self.share is None or self.interval is None:
            return self.reason
        low, high = map(_PERCENT.unsigned, self.interval)
        return f"{_PERCENT.unsigned(self.share)} ({low} to {high})"

    def to_mapping(self) -> dict[str, float | str | None]:
        """Plain values for JSON."""
        low, high = self.interval or (None, None)
        return {"share": self.share, "low": low, "high": high, "reason": self.reason or None}


def gap_explained(higher_is_better: bool = True) -> str:
    """What a column of such shares shows, in words.

    Args:
        higher_is_better: as for `gap_share`.
    """
    beyond = "above" if higher_is_better else "below"
    return (
        "Share of the gap: (method - local) / (centralised - local), of runs with otherwise equal settings, as the "
        f"quotient of the mean differences over common seeds, with its {INTERVAL} (Fieller's). None where centralised "
        f"is not {beyond} local, where the seeds do not tell the two apart, or with fewer than {FEWEST_SEEDS} seeds."
    )


def gap_share(
    method: Mapping[int, float],
    floor: Mapping[int, float],
    ceiling: Mapping[int, float],
    *,
    higher_is_better: bool = True,
) -> GapShare:
    """The share of the gap that a method closes, over the seeds that all three have.

    With a_i = method - floor and b_i = ceiling - floor of seed i it is mean(a) / mean(b). Its interval holds those s
    for which the mean of a_i - s b_i is not told apart from zero by Student's t (E. C. Fieller, "Some problems in
    interval estimation", Journal of the Royal Statistical Society B 16, 1954).

    Args:
        method: {seed: value} of the method, such as its accuracy or its perplexity.
        floor: of local training.
        ceiling: of centralised training.
        higher_is_better: whether centralised training is expected above local training, and not below it.

    >>> closed = gap_share({0: 4.0, 1: 6.0, 2: 8.0}, {0: 0.0, 1: 0.0, 2: 0.0}, {0: 8.0, 1: 12.0, 2: 16.0})
    >>> closed.share, closed.interval
    (0.5, (0.5, 0.5))
    """
    seeds = sorted(method.keys() & floor.keys() & ceiling.keys())
    a = [method[seed] - floor[seed] for seed in seeds]
    b = [ceiling[seed] - floor[seed] for seed in seeds]
    gap, n = Spread.of(b), len(seeds)
    p_value = gap.p_value(0.0)
    if p_value is None:
        return GapShare(None, None, "too few seeds")
    if (gap.mean if higher_is_better else -gap.mean) <= 0:
        return GapShare(None, None, "no gap")
    mean_a, mean_b = math.fsum(a) / n, gap.mean
    k = quantile_of_student(n - 1) ** 2 / n
    # s^2 (mean(b)^2 - k s_bb) - 2 s (mean(a) mean(b) - k s_ab) + mean(a)^2 - k s_aa <= 0
    square = mean_b**2 - k * _covariance(b, b)
    middle = mean_a * mean_b - k * _covariance(a, b)
    constant = mean_a**2 - k * _covariance(a, a)
    if p_value > SIGNIFICANCE or square <= 0:
        return GapShare(None, None, "gap not told apart")
    reach = math.sqrt(max(0.0, middle**2 - square * constant))
    return GapShare(mean_a / mean_b, ((middle - reach) / square, (middle + reach) / square))


def _covariance(a: list[float], b: list[float]) -> float:
    """The covariance of two quantities, each with one value a seed, divided by n - 1."""
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    return math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / (len(a) - 1)


def shares_within(
    names: Mapping[str, str], values: Mapping[str, Mapping[int, float]], *, higher_is_better: bool = True
) -> dict[str, GapShare]:
    """The shares of the methods of one problem: {key: share}; {} unless both references are among them.

    Args:
        names: {key of a method: name of its algorithm}.
        values: {key of a method: {seed: value}}.
        higher_is_better: as for `gap_share`.
    """
    first = {name: next((key for key, known in names.items() if known == name), None) for name in (FLOOR, CEILING)}
    floor, ceiling = first[FLOOR], first[CEILING]
    if floor is None or ceiling is None:
        return {}
    in_place = {FLOOR: GapShare(None, None, "the floor"), CEILING: GapShare(None, None, "the ceiling")}
    return {
        key: in_place.get(name)
        or gap_share(values[key], values[floor], values[ceiling], higher_is_better=higher_is_better)
        for key, name in names.items()
    }
