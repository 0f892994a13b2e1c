"""Terms of an exact sum computed and added, and averages made of it, in one pass over the values, compiled by numba.

The extra `fast-sums` installs numba. These loops are used for long vectors where it is there
(`fedbench.protocol.exact_sum.compiled_loops`); the results have the same bits without them. numba keeps what it has
compiled on disk, so that later processes only load it. It knows by this file whether that is still right: whatever
changes a result must stand here.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

_BLOCK = 1024
"""Number of values that are tested, then added: they are read from memory once, and a second time from the cache."""

Function = TypeVar("Function", bound=Callable[..., object])


def _add_within(
    total: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    factor: float,
    bound: float,
) -> int:
    """Add round(factor * (values - reference)), ties to even, to `total`, up to a block with a value that is too large.

    Numbers are rounded by adding 1.5 * 2**52, as in `fedbench.protocol.exact_sum`.

    Args:
        total: int64 [n].
        values: float32 [n].
        reference: float32 [n].
        factor: w_k 2**40.
        bound: the largest |factor * (values - reference)| to add, at most 2**50.

    Returns:
        How many values were added. Fewer than n: the next block holds a value that is not finite or beyond the bound.
    """
    magic = 1.5 * 2.0**52
    magic_bits = np.float64(magic).view(np.int64)
    for start in range(0, len(total), _BLOCK):
        sums = total[start : start + _BLOCK]
        arrived, started = values[start : start + _BLOCK], reference[start : start + _BLOCK]
        within: np.bool = np.bool_(True)
        for index in range(len(sums)):
            within &= abs((np.float64(arrived[index]) - np.float64(started[index])) * factor) <= bound
        if not within:
            return start
        for index in range(len(sums)):
            term = (np.float64(arrived[index]) - np.float64(started[index])) * factor
            sums[index] += np.float64(term + magic).view(np.int64) - magic_bits
    return len(total)


def _average(
    previous: npt.NDArray[np.float32],
    total: npt.NDArray[np.int64],
    factor: float,
    result: npt.NDArray[np.float32],
    changes: npt.NDArray[np.float64],
) -> None:
    """Compute x + factor T in float64, round it to float32, and take x from it again.

    Args:
        previous: float32 [n], x.
        total: int64 [n], T.
        factor: factor on T.
        result: float32 [n], overwritten by the rounded values.
        changes: float64 [n], overwritten by (result - previous).
    """
    for index in range(len(previous)):
        before = np.float64(previous[index])
        after = np.float32(np.float64(total[index]) * factor + before)
        result[index] = after
        changes[index] = np.float64(after) - before


def _compiled(function: Function, signature: object) -> Function:
    """`function` compiled for arguments of these types."""
    compiler: Any = numba.njit
    try:
        kept: Function = compiler(signature, nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder where numba may keep it
        anew: Function = compiler(signature, nogil=True)(function)
        return anew
    return kept


_read = numba.types.Array(numba.float32, 1, "C", readonly=True)
_sums, _written, _number = numba.int64[::1], numba.float32[::1], numba.float64

add_within = _compiled(_add_within, numba.int64(_sums, _read, _read, _number, _number))
average = _compiled(_average, numba.void(_read, _sums, _number, _written, numba.float64[::1]))
