"""Terms of an exact sum computed and added in one pass over the values, by a loop that numba compiles.

The extra `fast-sums` installs numba. `fedbench.protocol.exact_sum` uses this loop for long vectors where it is there;
the sums have the same bits without it. numba keeps the compiled loop on disk, so that later processes only load it.
"""

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt

_BLOCK = 1024
"""Number of values that are tested, then added: they are read from memory once, and a second time from the cache."""

Kernel = Callable[
    [npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], float, float],
    int,
]


def _add_within(
    total: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    factor: float,
    bound: float,
) -> int:
    """Add round(factor * (values - reference)), ties to even, to `total`, up to a block with a value that is too large.

    Numbers are rounded by adding 1.5 * 2**52, as in `fedbench.protocol.exact_sum`. Whatever changes the result must
    stand in this file, for by it numba knows whether what it keeps on disk is still right.

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


def _compiled(function: Kernel) -> Kernel:
    """`function` compiled for contiguous arrays, read-only ones among them."""
    read = numba.types.Array(numba.float32, 1, "C", readonly=True)
    signature = numba.int64(numba.int64[::1], read, read, numba.float64, numba.float64)
    try:
        kept: Kernel = numba.njit(signature, nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder where numba may keep it
        anew: Kernel = numba.njit(signature, nogil=True)(function)
        return anew
    return kept


add_within = _compiled(_add_within)
