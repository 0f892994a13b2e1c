"""Robust means: coordinate-wise median and trimmed mean.

D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018 (arXiv 1803.01498): Definition 1, the coordinate-wise median, and Definition 2, the coordinate-wise
beta-trimmed mean. The paper takes them over the workers' gradients, here they are taken over the participants'
updates, and every participant counts the same, whatever its number of samples.

Both sort each coordinate before anything is added, so that the result has the same bits for any order of clients.
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
"""Updates sorted at a time, over all clients: 2 MiB, whatever the size of the model."""


class Median(Algorithm):
    """Coordinate-wise median of the participants' updates (Yin et al., ICML 2018).

    Of an even number it is the mean of the middle two.
    """

    paper: ClassVar[str] = PAPER
    name: str = "median"

    def rule(self) -> ServerRule:
        return Robust(_median)

    def weight(self, samples: int) -> float:
        return 1.0


class TrimmedMean(Algorithm):
    """Coordinate-wise mean without the largest and smallest updates (Yin et al., ICML 2018).

    Of k participants floor(trim * k) are left out on each side, at every coordinate.

    With trim=0 it is the unweighted mean. It is not so bit for bit, because the updates are added in ascending
    order rather than by client: in float64 the two differ by at most k * 2**-52 times the mean of |updates|.

    Attributes:
        trim: fraction left out on each side.
    """

    paper: ClassVar[str] = PAPER
    name: str = "trimmed-mean"
    trim: float = Field(default=0.1, ge=0, lt=0.5)

    def rule(self) -> ServerRule:
        return Robust(self._trimmed_mean)

    def weight(self, samples: int) -> float:
        return 1.0

    def trimmed(self, clients: int) -> int:
        """How many of `clients` are left out on each side; at least one remains."""
        # As written, so that 0.29 of 100 are 29; in binary 0.29 * 100 is just below.
        return math.floor(Fraction(str(self.trim)) * clients)

    def _trimmed_mean(self, ascending: Values) -> Values:
        clients = len(ascending)
        trimmed = self.trimmed(clients)
        mean: Values = ascending[trimmed : clients - trimmed].mean(axis=0)
        return mean


class Robust(ServerRule):
    """Adds a statistic of each coordinate's updates, whose weights it ignores."""

    def __init__(self, statistic: Callable[[Values], Values]) -> None:
        """Args:
        statistic: from float64 [k, c], ascending along the first axis, to float64 [c].
        """
        self._statistic = statistic

    def needs(self, round_index: int) -> Needs:
        return "updates"

    def combine_each(self, previous: Values, updates: Values, weights: Values, context: RuleContext) -> Values:
        clients, size = updates.shape
        chunk = max(1, _CHUNK_VALUES // clients)
        combined = np.empty(size)
        for start in range(0, size, chunk):
            piece = slice(start, start + chunk)
            combined[piece] = previous[piece] + self._statistic(np.sort(updates[:, piece], axis=0))
        return combined


def _median(ascending: Values) -> Values:
    clients = len(ascending)
    middle: Values = (ascending[(clients - 1) // 2] + ascending[clients // 2]) / 2
    return middle
