"""Holding out a test split for data that have none."""

import numpy as np

from fedbench.data.base import IntArray
from fedbench.errors import ConfigError, DataError

DEFAULT_TEST_FRACTION = 0.2


def hold_out(groups: IntArray, fraction: float | None, seed: int) -> tuple[IntArray, IntArray]:
    """Draw a test split of the same share within every group (class, or natural client).

    Each group gives round(fraction * size) rows, and keeps at least one for training.

    Args:
        groups: int64 [N], the group of each row.
        fraction: share held out, in (0, 1); None: 0.2.
        seed: equal seeds draw equal splits.

    Returns:
        Ascending row indices of the training split and of the test split, int64.

    Raises:
        ConfigError: a fraction outside (0, 1), or one so small that no row is held out.

    Example:
        >>> train, test = hold_out(np.repeat([0, 1], 10), 0.3, seed=0)
        >>> len(train), len(test), int((test < 10).sum())
        (14, 6, 3)
    """
    share = DEFAULT_TEST_FRACTION if fraction is None else fraction
    if not 0 < share < 1:
        raise ConfigError(f"data.test_fraction={fraction}: must be between 0 and 1, both excluded")
    rng = np.random.default_rng([seed, 0x7E57])
    held = np.zeros(len(groups), dtype=bool)
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    for rows in np.split(order, borders):
        count = min(int(share * len(rows) + 0.5), len(rows) - 1)
        held[rng.permutation(rows)[:count]] = True
    if not held.any():
        raise ConfigError(f"data.test_fraction={share}: holds out none of the {len(groups)} rows; raise it")
    return np.flatnonzero(~held), np.flatnonzero(held)


def refuse_test_fraction(name: str, test_fraction: float | None) -> None:
    """Refuse `data.test_fraction` for data with a test split.

    Raises:
        ConfigError: it is set.
    """
    if test_fraction is not None:
        raise ConfigError(f"data.test_fraction has no effect: {name} has a test split of its own")


def require_rows(rows: int, name: str) -> None:
    """Refuse a data set that is too small to hold anything out.

    Raises:
        DataError: fewer than two rows.
    """
    if rows < 2:
        raise DataError(f"{name}: {rows} row(s), expected at least 2 to hold out a test split")
