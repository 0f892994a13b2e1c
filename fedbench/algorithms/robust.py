"""Robust server rules: coordinate-wise median and trimmed mean.

D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018 (arXiv 1803.01498): Definition 1, the coordinate-wise median, and Definition 2, the coordinate-wise
beta-trimmed mean. The paper takes them over the workers' gradients. Here they are taken over the participants'
updates, and every participant counts the same, whatever its number of samples. For each coordinate c, with k
participants and u_(1) <= ... <= u_(k) the sorted values of their updates,

    w_c <- w_c + median(u_(1), ..., u_(k))                                          median
    w_c <- w_c + mean(u_(b+1), ..., u_(k-b)),        b = floor(beta k)              trimmed mean.

The same statistic is taken of the updates of running statistics, so that no single participant moves these either. A
method's further channels stay averaged, since SCAFFOLD's c is the mean of what the clients keep: with SCAFFOLD one bad
participant can still move c. A median of one or two updates is their mean, and a trimmed mean of fewer than 1 / beta
leaves nobody out: both are refused.

Each coordinate is sorted before anything is added, so that the result has the same bits for any order of clients.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RuleContext, ServerRule, Values

PAPER = "Yin et al., ICML 2018, arXiv 1803.01498"

_CHUNK_VALUES = 1 << 18
"""Number of values sorted at a time, over all clients: 2 MiB, whatever the size of the model."""


class Median(Algorithm):
    """Coordinate-wise median of the participants' updates (Yin et al., ICML 2018).

    For an even number of participants it is the mean of the middle two values.
    """

    paper: ClassVar[str] = PAPER
    name: str = "median"

    def rule(self) -> ServerRule:
        return Robust(_median, fewest=3)

    def weight(self, samples: int) -> float:
        return 1.0


class TrimmedMean(Algorithm):
    """Coordinate-wise mean without the largest and smallest updates (Yin et al., ICML 2018).

    Of k participants floor(trim * k) are left out on each side, at every coordinate.

    With trim=0 it is the unweighted mean, but not bit for bit, because the updates are added in ascending order
    rather than by client: in float64 the two differ by at most k * 2**-52 times the mean of |updates|.

    Attributes:
        trim: beta, the fraction of the participants left out on each side.
    """

    paper: ClassVar[str] = PAPER
    name: str = "trimmed-mean"
    trim: float = Field(default=0.1, ge=0, lt=0.5)

    def rule(self) -> ServerRule:
        return Robust(self._trimmed_mean, fewest=math.ceil(1 / Fraction(str(self.trim))) if self.trim else 1)

    def weight(self, samples: int) -> float:
        return 1.0

    def trimmed(self, clients: int) -> int:
        """b, how many of `clients` participants are left out on each side; at least one remains."""
        # Computed on the decimal fraction as written: in binary 0.29 * 100 is just below 29.
        return math.floor(Fraction(str(self.trim)) * clients)

    def _trimmed_mean(self, ascending: Values) -> Values:
        clients = len(ascending)
        trimmed = self.trimmed(clients)
        mean: Values = ascending[trimmed : clients - trimmed].mean(axis=0)  # u_(b+1), ..., u_(k-b)
        return mean


class Robust(ServerRule):
    """The server rule that adds a statistic of each coordinate's updates, without regard to the clients' weights."""

    def __init__(self, statistic: Callable[[Values], Values], fewest: int) -> None:
        """Args:
        statistic: function from float64 [k, c], ascending along the first axis, to float64 [c].
        fewest: the smallest k with which the statistic is robust.
        """
        self._statistic = statistic
        self.fewest = fewest

    def needs(self, round_index: int) -> Needs:
        return "updates"

    def combine_each(self, previous: Values, updates: Values, weights: Values, context: RuleContext) -> Values:
        combined: Values = previous + self.location(updates, weights)
        return combined

    def location(self, updates: Values, weights: Values) -> Values:
        clients, size = updates.shape
        chunk = max(1, _CHUNK_VALUES // clients)
        located = np.empty(size)
        for start in range(0, size, chunk):
            piece = slice(start, start + chunk)
            located[piece] = self._statistic(np.sort(updates[:, piece], axis=0))
        return located


def _median(ascending: Values) -> Values:
    clients = len(ascending)
    middle: Values = (ascending[(clients - 1) // 2] + ascending[clients // 2]) / 2
    return middle
