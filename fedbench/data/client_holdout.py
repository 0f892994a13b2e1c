"""Holding out rows of every client, on which its accuracy is measured and that nobody trains on."""

from collections.abc import Sequence

import numpy as np

from fedbench.data.apportion import apportion
from fedbench.data.base import IntArray
from fedbench.errors import ConfigError
from fedbench.randomness import generator

KEY = "data.client_test_fraction"
PURPOSE = "client test rows"


def hold_out_of_clients(
    rows: Sequence[IntArray], labels: IntArray, fraction: float, seed: int, *, overlap: bool
) -> tuple[tuple[IntArray, ...], tuple[IntArray, ...]]:
    """Divide each client's rows into those that it trains on and those that are held out.

    Of a client with n rows round(fraction * n) are drawn, in the proportions of its classes, and at most n - 1.

    Clients that share rows (`data.overlap`) draw together: a row is held out for all that hold it, or for none, so that
    no client trains on what another one is scored on. The share is then met over all rows together; that of a single
    client varies about it. A client whose rows would all be held out gets one of them back, as do those that share it.

    Args:
        rows: for each client, its ascending row indices, int64.
        labels: int64 [N], the class of each row of the training split.
        fraction: share held out, in (0, 1).
        seed: seed of the experiment; the draw of a client depends on nothing but the seed and its rows.
        overlap: whether clients may share rows.

    Returns:
        For each client its training rows and its held-out rows, ascending, int64. Clients with very few rows have none
        held out.

    Raises:
        ConfigError: the fraction is so small that no client has a row held out.

    Example:
        >>> train, held = hold_out_of_clients([np.arange(10)], np.repeat([0, 1], 5), 0.4, seed=0, overlap=False)
        >>> len(train[0]), len(held[0]), int((held[0] < 5).sum())
        (6, 4, 2)
    """
    held_out = np.zeros(len(labels), dtype=bool)
    if overlap:
        union = np.unique(np.concatenate(rows))
        held_out[_draw(union, labels, fraction, generator(seed, PURPOSE))] = True
        for client, part in enumerate(rows):
            if held_out[part].all():
                held_out[generator(seed, PURPOSE, client).choice(part)] = False
    else:
        for client, part in enumerate(rows):
            held_out[_draw(part, labels, fraction, generator(seed, PURPOSE, client))] = True
    if not held_out.any():
        raise ConfigError(f"{KEY}={fraction:g}: holds out none of the clients' rows; raise it, or give clients more")
    return tuple(part[~held_out[part]] for part in rows), tuple(part[held_out[part]] for part in rows)


def remarks_on_clients(test_rows: Sequence[IntArray]) -> tuple[str, ...]:
    """What a user should know of the held-out rows, one line each.

    Args:
        test_rows: for each client, its held-out rows; (): none are held out.
    """
    without = sum(not len(part) for part in test_rows)
    if not without:
        return ()
    return (f"{KEY}: {without} of {len(test_rows)} clients have so few rows that none is held out of them",)


def _draw(rows: IntArray, labels: IntArray, fraction: float, rng: np.random.Generator) -> IntArray:
    """The share of `rows` in the proportions of their classes; at least one row is left.

    Classes whose quotas are equal come in random order, so that no class is preferred for its label.
    """
    count = min(int(fraction * len(rows) + 0.5), len(rows) - 1)
    present, class_of_row = np.unique(labels[rows], return_inverse=True)
    order = rng.permutation(len(present))
    by_class = [rng.permutation(rows[class_of_row == number]) for number in order]
    sizes = np.array([len(part) for part in by_class])
    counts = apportion(count, sizes.astype(np.float64), sizes)
    return np.concatenate([part[:taken] for part, taken in zip(by_class, counts, strict=True)])
