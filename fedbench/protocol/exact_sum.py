"""Sums of updates whose result does not depend on how the terms are grouped or ordered.

Floating-point addition is not associative, so an average over clients would depend on which actor held which
client. Here every weighted update is rounded once, to a multiple of 2**-40, and added as int64: integer addition
is exactly associative, so any number of actors, or nodes, may each return one partial sum and the total has the
same bits.

With x_k the values that client k arrived at, r those that it started from and w_k its weight, the total is

    T = sum_k round(w_k (x_k - r) 2**40),        and T / 2**40 is the weighted update.

Resolution: 2**-40 = 9.1e-13 per client, absolute. A float32 of magnitude 2**-17 = 7.6e-6 or more is not resolved
finer than that itself, so one client with weight 1 gives its parameters back bit for bit above that magnitude, and
to within 2**-41 below. Range: |x_k - r| <= 2**20 for any client; the weights sum to at most 1, so that |T| stays far
below the 2**63 at which int64 would overflow.

NumPy needs nine passes over the values for that. Where the extra `fast-sums` is installed, long vectors are added in
one compiled pass (`fedbench.protocol.fused_sum`), to the same bits.
"""

from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

FRACTION_BITS = 40
SCALE = float(2**FRACTION_BITS)
LARGEST_UPDATE = float(2**20)
"""The largest |update| of a single parameter that can be summed exactly; a client beyond it has diverged."""

FixedPoint = npt.NDArray[np.int64]
"""Fixed-point numbers: int64 multiples of 2**-40."""

_MAGIC = 1.5 * 2.0**52
"""Added to a float64 of magnitude below 2**51, it rounds it to an integer (`_rounded`)."""

_MAGIC_BITS = np.float64(_MAGIC).view(np.int64)
_ROUNDS_BELOW = 2.0**50
"""Magnitude up to which `_rounded` is used, with a margin of a factor of 2."""

_CHUNK = 1 << 15
"""Number of values processed at a time, so that the float64 intermediates stay in the cache."""

_LONG = 1 << 20
"""Number of values from which on numba is imported: a process pays 0.65 s and 125 MB for it, and saves 2 ms for each
million values (`tests/benchmarks/test_sum_cost.py`)."""

_CERTAINLY = 1 - 2.0**-20
"""Factor on a limit below which float64 and float32 arithmetic agree that it is kept."""


def accumulate(
    total: FixedPoint,
    values: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    weight: float,
    limit: float = LARGEST_UPDATE,
) -> bool:
    """Add round(weight * (values - reference) * 2**40), ties to even, to `total` in place.

    Args:
        total: int64 [n].
        values: float32 [n], the values that a client arrived at.
        reference: float32 [n], the values that it started from.
        weight: w_k, the client's weight in [0, 1], times further factors if there are any.
        limit: the largest |update| to accept, at most `LARGEST_UPDATE`.

    Returns:
        False, with `total` unchanged, when an update is not finite or larger than `limit`.
    """
    factor, start = weight * SCALE, 0
    buffers = np.empty((2, min(_CHUNK, len(total))))
    while (start := start + _fused(total[start:], values[start:], reference[start:], factor, limit)) < len(total):
        piece = slice(start, start + _CHUNK)
        term = _term(values[piece], reference[piece], factor, limit, buffers)
        if term is None:
            retract(total[:start], values[:start], reference[:start], weight)
            return False
        chunk = total[piece]
        chunk += term
        start += len(chunk)
    return True


def _fused(
    total: FixedPoint,
    values: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    factor: float,
    limit: float,
) -> int:
    """Add the first terms of a long vector in one pass; how many were added, 0 where there is no numba.

    It ends before values that have to be looked at closely (`_certain_bound`).
    """
    contiguous = total.flags.c_contiguous and values.flags.c_contiguous and reference.flags.c_contiguous
    loops = compiled_loops(len(total))
    if loops is None or not contiguous:
        return 0
    added: int = loops.add_within(total, values, reference, factor, _certain_bound(factor, limit))
    return added


def compiled_loops(size: int) -> ModuleType | None:
    """`fedbench.protocol.fused_sum`, for vectors of `size` values; None: these are short, or there is no numba."""
    return _compiled_loops() if size >= _LONG else None


@cache
def _compiled_loops() -> ModuleType | None:
    """The module; None where numba is not installed, or not for this version of NumPy."""
    try:
        from fedbench.protocol import fused_sum
    except ImportError:
        return None
    return fused_sum


def retract(
    total: FixedPoint, values: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], weight: float
) -> None:
    """Take from `total` what `accumulate` has added to it for the same values, reference and weight."""
    buffers = np.empty((2, min(_CHUNK, len(total))))
    for start in range(0, len(total), _CHUNK):
        piece = slice(start, start + _CHUNK)
        term = _term(values[piece], reference[piece], weight * SCALE, LARGEST_UPDATE, buffers)
        assert term is not None
        chunk = total[piece]
        chunk -= term


def _term(
    values: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    factor: float,
    limit: float,
    buffers: npt.NDArray[np.float64],
) -> FixedPoint | None:
    """round(factor * (values - reference)) for n values, ties to even; the memory may be that of `buffers`.

    Args:
        values: float32 [n], x_k.
        reference: float32 [n], r.
        factor: w_k 2**40.
        limit: the largest |update| to accept.
        buffers: float64 [2, at least n], overwritten.

    Returns:
        None when an update is not finite or larger than `limit`.
    """
    update, subtrahend = buffers[:, : len(values)]
    update[...], subtrahend[...] = values, reference
    with np.errstate(invalid="ignore"):
        update -= subtrahend  # x_k - r, in float64
        update *= factor
        bound = _certain_bound(factor, limit)
        if update.max() <= bound and update.min() >= -bound:
            return _rounded(update)
    if not summable(values, reference, limit):
        return None
    term: FixedPoint = np.rint(update, out=update).astype(np.int64)
    return term


def _certain_bound(factor: float, limit: float) -> float:
    """The magnitude up to which a factor * (x_k - r) is certainly within the limit, and in the range of `_rounded`.

    One test thus serves for both; what does not pass is looked at closely. -1, which nothing passes, for the tiny
    factors with which it would not be certain.
    """
    return min(_ROUNDS_BELOW, limit * _CERTAINLY * factor) if factor >= 1.0 else -1.0


def _rounded(values: npt.NDArray[np.float64]) -> FixedPoint:
    """round(values), ties to even, for |values| < 2**51; the result overwrites the memory of `values`.

    Between 2**52 and 2**53 a float64 has no fraction: adding 1.5 * 2**52 rounds, and leaves the integer in the low
    bits. That takes less time than `rint` and a conversion.
    """
    values += _MAGIC
    integers = values.view(np.int64)
    integers -= _MAGIC_BITS
    return integers


def summable(
    values: npt.NDArray[np.float32], reference: npt.NDArray[np.float32] | None, limit: float = LARGEST_UPDATE
) -> bool:
    """Whether every |values - reference| is finite and at most `limit`; `reference` None stands for zeros."""
    if reference is None:
        return bool(values.max(initial=0) <= limit and values.min(initial=0) >= -limit)  # NaN is neither
    with np.errstate(invalid="ignore", over="ignore"):
        return all(
            bool(np.abs(values[start : start + _CHUNK] - reference[start : start + _CHUNK]).max() <= limit)
            for start in range(0, len(values), _CHUNK)
        )


def decode(total: FixedPoint, factor: float = 1.0) -> npt.NDArray[np.float64]:
    """The value of a fixed-point total, T / 2**40, times `factor`, as float64."""
    values = total.astype(np.float64)
    values *= factor / SCALE
    return values
