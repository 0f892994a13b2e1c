"""Sums whose result does not depend on how the terms are grouped or ordered.

Floating-point addition is not associative, so an average over clients would depend on which actor held which
client. Here every weighted update is rounded once, to a multiple of 2**-40, and added as int64: integer addition
is exactly associative, so any number of actors, or nodes, may each return one partial sum and the total has the
same bits.

Resolution: 2**-40 = 9.1e-13 per client, absolute. A float32 of magnitude 2**-17 = 7.6e-6 or more is not resolved
finer than that itself, so one client with weight 1 gives its parameters back bit for bit above that magnitude, and
to within 2**-41 below. Range: |update| <= 2**20 for any client; the weights sum to at most 1, so that the total
stays far below the 2**23 at which int64 would overflow.
"""

import numpy as np
import numpy.typing as npt

FRACTION_BITS = 40
SCALE = float(2**FRACTION_BITS)
LARGEST_UPDATE = float(2**20)
"""The largest |update| of a single parameter that can be summed exactly; a client beyond it has diverged."""

FixedPoint = npt.NDArray[np.int64]

_CHUNK = 1 << 15
"""Values handled at a time, so that the float64 intermediates stay in the cache."""


def accumulate(
    total: FixedPoint, values: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], weight: float
) -> bool:
    """Add round(weight * (values - reference) * 2**40), ties to even, to `total` in place.

    Args:
        total: int64 [n].
        values: float32 [n], what a client arrived at.
        reference: float32 [n], what it started from.
        weight: in [0, 1].

    Returns:
        False, with `total` unchanged, when an update is not finite or larger than `LARGEST_UPDATE`.
    """
    if not summable(values, reference):
        return False
    buffer = np.empty(min(_CHUNK, len(total)))
    for start in range(0, len(total), _CHUNK):
        piece = slice(start, start + _CHUNK)
        update = np.subtract(values[piece], reference[piece], out=buffer[: len(total[piece])], dtype=np.float64)
        update *= weight * SCALE
        np.rint(update, out=update)
        total[piece] += update.astype(np.int64)
    return True


def summable(
    values: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], limit: float = LARGEST_UPDATE
) -> bool:
    """Whether every |values - reference| is finite and at most `limit`."""
    with np.errstate(invalid="ignore", over="ignore"):
        return all(
            bool(np.abs(values[start : start + _CHUNK] - reference[start : start + _CHUNK]).max() <= limit)
            for start in range(0, len(values), _CHUNK)
        )


def decode(total: FixedPoint, factor: float = 1.0) -> npt.NDArray[np.float64]:
    """The float64 sum behind an accumulated fixed-point total, times `factor`."""
    values = total.astype(np.float64)
    values *= factor / SCALE
    return values
