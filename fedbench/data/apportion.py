"""Dividing a total into whole numbers in given proportions."""

import numpy as np
import numpy.typing as npt

from fedbench.data.base import IntArray


def apportion(total: int, wanted: npt.NDArray[np.float64], available: IntArray) -> IntArray:
    """Divide `total` over K classes in the wanted proportions, as far as `available` allows.

    Quotas are rounded by largest remainder. A class that would get more than is available gets all that there is. What
    is missing then goes to the other classes in their proportions, and so on until the total is reached. Where the
    other proportions are all zero, it goes to them in proportion to what is available.

    Args:
        total: the sum, at most the sum of `available`.
        wanted: float64 [K], the proportions: at least 0, of any positive sum.
        available: int64 [K], the most that each class may get.

    Returns:
        int64 [K] that sum to `total`.

    Example:
        >>> apportion(10, np.array([0.5, 0.3, 0.2]), np.array([2, 100, 100])).tolist()
        [2, 5, 3]
    """
    counts = np.zeros_like(available)
    while (missing := total - int(counts.sum())) > 0:
        open_classes = counts < available
        weights = np.where(open_classes, wanted, 0.0)
        if weights.sum() <= 0:
            # All weight is on classes that are used up: the others share the rest in proportion to their rows.
            weights = (available - counts).astype(np.float64)
        quotas = missing * weights / weights.sum()
        share = np.floor(quotas).astype(np.int64)
        largest = np.argsort(share - quotas, kind="stable")[: missing - int(share.sum())]
        share[largest] += 1
        counts = np.minimum(counts + share, available)
    return counts
