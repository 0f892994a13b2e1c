"""Whole numbers in given proportions."""

import numpy as np
import numpy.typing as npt

from fedbench.data.base import IntArray


def apportion(total: int, wanted: npt.NDArray[np.float64], available: IntArray) -> IntArray:
    """Whole numbers that sum to `total`, in the wanted proportions as far as `available` allows.

    Rounded by largest remainder. A place that would get more than is available gets all of that; what is missing then
    goes to the others in their proportions, again and again; where these are all zero, in proportion to what is left.

    Args:
        total: the sum, at most the sum of `available`.
        wanted: proportions [K], at least 0, of any positive sum.
        available: int64 [K], the most that each may get.

    Returns:
        int64 [K].

    Example:
        >>> apportion(10, np.array([0.5, 0.3, 0.2]), np.array([2, 100, 100])).tolist()
        [2, 5, 3]
    """
    counts = np.zeros_like(available)
    while (missing := total - int(counts.sum())) > 0:
        open_classes = counts < available
        weights = np.where(open_classes, wanted, 0.0)
        if weights.sum() <= 0:
            # The draw gave all its weight to classes that are used up: the rest as the rows are there.
            weights = (available - counts).astype(np.float64)
        quotas = missing * weights / weights.sum()
        share = np.floor(quotas).astype(np.int64)
        largest = np.argsort(share - quotas, kind="stable")[: missing - int(share.sum())]
        share[largest] += 1
        counts = np.minimum(counts + share, available)
    return counts
