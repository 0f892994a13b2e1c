"""The server's arithmetic on whole models, a piece at a time, so that the float64 intermediates stay in the cache."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedbench.algorithms.base import ServerRule, Values
from fedbench.protocol.exact_sum import SCALE, FixedPoint, compiled_loops
from fedbench.protocol.layout import ParameterLayout, Vector

_CHUNK = 1 << 13
"""Number of values processed at a time; a BLAS computes scalar products of so few values in one thread."""

Pieces = Sequence[tuple[slice, float]]
"""Pieces of an exact sum: the place of each in the sum, and the factor that makes a mean of it."""


def averages(rule: ServerRule) -> bool:
    """Whether the rule's `combine` is that of the base class: the previous values plus the mean update."""
    return getattr(rule.combine, "__func__", None) is ServerRule.combine


def mean_update(total: FixedPoint, pieces: Pieces) -> Values:
    """float64, factor T / 2**40 for each piece of an exact sum T, one piece after the other."""
    mean, start = np.empty(sum(place.stop - place.start for place, _ in pieces)), 0
    for place, factor in pieces:
        stop = start + place.stop - place.start
        mean[start:stop] = total[place]
        mean[start:stop] *= factor / SCALE
        start = stop
    return mean


def average(previous: Vector, total: FixedPoint, place: slice, factor: float, result: Vector) -> float:
    """Write x + factor T / 2**40, computed in float64 and rounded to float32, to `result`.

    Args:
        previous: float32 [n], x, the global values.
        total: int64, an exact sum.
        place: the place of T in it, n values.
        factor: factor on T.
        result: float32 [n], overwritten.

    Returns:
        The L2 norm of (result - previous); not finite where a result is beyond the range of float32.
    """
    updates, befores = np.empty((2, min(_CHUNK, len(previous))))
    squares, loops = 0.0, compiled_loops(len(total))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(previous), _CHUNK):
            piece = slice(start, min(start + _CHUNK, len(previous)))
            update, before = updates[: piece.stop - start], befores[: piece.stop - start]
            sums = total[place.start + start : place.start + piece.stop]
            if loops is not None:
                loops.average(previous[piece], sums, factor / SCALE, result[piece], update)
                squares += float(update @ update)
                continue
            update[...] = sums
            update *= factor / SCALE
            before[...] = previous[piece]
            update += before  # x + factor T / 2**40
            result[piece] = update
            update[...] = result[piece]
            update -= before
            squares += float(update @ update)
    return math.sqrt(squares)


def distance(after: Vector, before: Vector) -> float:
    """The L2 norm of (after - before), both float32 [n], computed in float64."""
    differences, subtrahends = np.empty((2, min(_CHUNK, len(after))))
    squares = 0.0
    for start in range(0, len(after), _CHUNK):
        piece = slice(start, min(start + _CHUNK, len(after)))
        difference, subtrahend = differences[: piece.stop - start], subtrahends[: piece.stop - start]
        difference[...], subtrahend[...] = after[piece], before[piece]
        difference -= subtrahend
        squares += float(difference @ difference)
    return math.sqrt(squares)


def average_groups(
    previous: Vector,
    total: FixedPoint,
    pieces: Mapping[int, tuple[slice, float]],
    layout: ParameterLayout,
    result: Vector,
) -> tuple[Vector, dict[int, float]]:
    """The average of several layer groups.

    Args:
        previous: float32 [P], the global parameters; not changed.
        total: int64, an exact sum.
        pieces: {group: (its place in the sum, factor)}, ascending by group.
        layout: layout of the parameters.
        result: float32, overwritten by the new values of these groups, one after the other.

    Returns:
        `result`, and for each group the L2 norm of its change.
    """
    start, norms = 0, {}
    for group, (place, factor) in pieces.items():
        stop = start + layout.group_size(group)
        norms[group] = average(previous[layout.slices[group]], total, place, factor, result[start:stop])
        start = stop
    return result, norms


def changes(after: Vector, parameters: Vector, groups: Sequence[int], layout: ParameterLayout) -> dict[int, float]:
    """{group: L2 norm of its change}, for the new values of `groups`, one group after the other."""
    norms, start = {}, 0
    for group in groups:
        stop = start + layout.group_size(group)
        norms[group] = distance(after[start:stop], parameters[layout.slices[group]])
        start = stop
    return norms
