"""Slopes in log-log: the exponent p of a quantity that falls as T^p, with its confidence interval over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedbench.tables.comparisons import Judgement, judged_together
from fedbench.tables.seed_statistics import Spread

Reading = Literal["rate", "faster", "slower"]
"""How a slope stands beside a theorem's exponent: not told apart from it, smaller, or larger."""


@dataclass(frozen=True)
class Slope:
    """The exponent of a quantity, one value a seed.

    Attributes:
        values: the exponent for each seed.
        expected: the exponent of a theorem's bound; None where no theorem speaks of this quantity.
        judgement: what is concluded beside other slopes; None: it is judged by itself.
    """

    values: Spread
    expected: float | None = None
    judgement: Judgement | None = None

    @property
    def p_value(self) -> float | None:
        """The p-value of `expected` being the true exponent; None without a theorem or with too few seeds."""
        return None if self.expected is None else self.values.p_value(self.expected)

    @property
    def reading(self) -> Reading | None:
        """How it stands beside `expected`; None without a theorem, or with fewer than `FEWEST_SEEDS` seeds."""
        if self.expected is None or self.p_value is None:
            return None
        judgement = self.judgement or judged_together({None: self.p_value})[None]
        if not judgement.is_told_apart:
            return "rate"
        return "faster" if self.values.mean < self.expected else "slower"


def fit(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the least-squares line through (log x, log y).

    Args:
        x, y: positive values, at least two different ones in `x`.

    >>> round(fit([1, 2, 4], [3, 1.5, 0.75]), 12)
    -1.0
    """
    log_x, log_y = np.log(x), np.log(y)
    centred = log_x - log_x.mean()
    return float(centred @ log_y / (centred @ centred))


def slope_over_seeds(
    by_seed: Mapping[int, Mapping[float, float]], expected: float | None, at_least: float = 0.0
) -> Slope:
    """Fit a line for each seed by itself.

    Args:
        by_seed: {seed: {x: y}}, positive.
        expected: the exponent of a theorem's bound, or None.
        at_least: smaller x are left out.
    """
    exponents = []
    for points in by_seed.values():
        kept = sorted(x for x in points if x >= at_least)
        exponents.append(fit(kept, [points[x] for x in kept]))
    return Slope(Spread.of(exponents), expected)
