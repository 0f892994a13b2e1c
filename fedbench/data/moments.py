"""Mean and standard deviation of arrays, by which they are normalised."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

AT_A_TIME = 65_536
"""Rows that are converted to float64 at a time."""


def moments(inputs: npt.NDArray[Any], axis: int = -1) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each entry of an axis, over all other axes.

    An entry that is the same everywhere has the deviation 1, so that it becomes 0.

    Args:
        inputs: [N, ..., F], N at least 1.
        axis: the last one, or 1, the channels of series [N, C, L].

    Returns:
        One number for each entry of the last axis; or, of an axis before it, for each value of a row, the last axis
        running fastest.

    Example:
        >>> moments(np.array([[1, 5], [3, 5]], np.float32))
        ((2.0, 5.0), (1.0, 1.0))
    """
    if axis == 1 and inputs.ndim > 2:
        of_channels = [moments(inputs[:, channel].reshape(-1, 1)) for channel in range(inputs.shape[1])]
        size = math.prod(inputs.shape[2:])
        mean_of_rows, std_of_rows = (np.repeat([pair[part] for pair in of_channels], size) for part in (0, 1))
        return tuple(mean_of_rows.tolist()), tuple(std_of_rows.tolist())
    rows = inputs.reshape(-1, inputs.shape[-1])
    parts = [rows[start : start + AT_A_TIME] for start in range(0, len(rows), AT_A_TIME)]
    mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(rows)
    squares = np.sum([np.square(part.astype(np.float64) - mean).sum(axis=0) for part in parts], axis=0)
    constant = rows.min(axis=0) == rows.max(axis=0)
    mean = np.where(constant, rows[0], mean)
    std = np.where(constant, 1.0, np.sqrt(squares / len(rows)))
    return tuple(mean.tolist()), tuple(std.tolist())
