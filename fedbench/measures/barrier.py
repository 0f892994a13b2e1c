"""The loss barrier between two models: how far the loss rises above the line between theirs on the way."""

from collections.abc import Sequence

import numpy as np


def places_on_line(points: int) -> list[float]:
    """The places t on a line that are looked at: `points` of them, evenly from 0 to 1."""
    return [index / (points - 1) for index in range(points)]


def loss_barrier(losses: Sequence[float]) -> float:
    """max_t L(t) - ((1 - t) L(0) + t L(1)), which is 0 where the loss nowhere rises above the line between its ends.

    The definition is that of Frankle, Dziugaite, Roy, Carbin, "Linear Mode Connectivity and the Lottery Ticket
    Hypothesis" (ICML 2020), against the line between the ends instead of their mean, as in Entezari, Sedghi, Saukh,
    Neyshabur, "The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks" (ICLR 2022).
    NaN where a loss is not finite.

    Args:
        losses: L(t) at evenly spaced places t from 0 to 1, of which there are at least two.

    >>> loss_barrier([1.0, 4.0, 3.0])
    2.0
    """
    values = np.asarray(losses, np.float64)
    t = np.linspace(0.0, 1.0, len(values))
    if not np.isfinite(values).all():
        return float("nan")
    return float((values - ((1 - t) * values[0] + t * values[-1]))[:-1].max())
