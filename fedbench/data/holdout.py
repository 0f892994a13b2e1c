"""Holding out a test split for data that have none, and a validation split where one is asked for."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from fedbench.data.base import FederatedData, IntArray, Split, counted
from fedbench.data.strata import strata_of
from fedbench.errors import ConfigError, DataError
from fedbench.tasks.kinds import TASKS

DEFAULT_TEST_FRACTION = 0.2
TEST_DRAW, VALIDATION_DRAW = 0x7E57, 0x7A11D
"""Numbers that keep the draws of the two splits apart; each is joined with the run's seed."""


def with_validation(data: FederatedData, fraction: float, seed: int) -> FederatedData:
    """The data with a validation split: their own, or one that is drawn from their training rows.

    It has the same share of every class (`fedbench.data.strata`), or of every natural client where the data have these.
    Each keeps at least one training row.

    Args:
        fraction: `data.validation_fraction`, share of the training rows in [0, 1); 0: none is drawn.
        seed: seed of the draw.

    Raises:
        ConfigError: a fraction for data with a validation split of their own or with rows that overlap, one so small
            that no row is held out, or rows of which no token or pixel counts.
    """
    if not fraction:
        return data
    refuse_overlapping_rows(data, "data.validation_fraction", fraction)
    if data.validation is not None:
        raise ConfigError(
            f"data.validation_fraction={fraction:g} has no effect: {data.name} has a validation split of its own"
        )
    train = data.train
    groups = strata_of(data).of(train.labels) if train.owners is None else train.owners
    kept, held = hold_out(groups, fraction, seed, "data.validation_fraction", VALIDATION_DRAW)
    for words, rows in (("held out", held), ("left for training", kept)):
        if not counted(train.labels[rows], data.task).size:
            raise ConfigError(
                f"data.validation_fraction={fraction:g}: of the {len(rows)} rows {words} no {TASKS[data.task].places} "
                "counts; set another fraction"
            )
    digest = hashlib.sha256(json.dumps([data.fingerprint, "validation", fraction, seed]).encode())
    return replace(
        data.scaled_without(held),
        train=_select(train, kept),
        validation=_select(train, held),
        validation_by_seed=True,
        source=f"{data.source}, {fraction:g} of the training rows held out for validation",
        fingerprint=digest.hexdigest(),
    )


def _select(rows: Split, index: IntArray) -> Split:
    # The inputs of an outline are one row many times over: a copy of them would fill memory with zeros.
    repeated = rows.inputs.strides[0] == 0
    inputs = rows.inputs[: len(index)] if repeated else rows.inputs[index]
    return Split(inputs, rows.labels[index], None if rows.owners is None else rows.owners[index])


def hold_out(
    groups: IntArray,
    fraction: float | None,
    seed: int,
    key: str = "data.test_fraction",
    draw: int = TEST_DRAW,
) -> tuple[IntArray, IntArray]:
    """Draw a split of the same share within every group (class, or natural client).

    Each group gives round(fraction * size) rows, and keeps at least one for training.

    Args:
        groups: int64 [N], the group of each row.
        fraction: share held out, in (0, 1); None: 0.2.
        seed: equal seeds draw equal splits.
        key: of the configuration, for error messages.
        draw: what the draw starts from beside the seed, another number for each split that is held out.

    Returns:
        Ascending row indices of the training split and of the one that is held out, int64.

    Raises:
        ConfigError: a fraction outside (0, 1), or one so small that no row is held out.

    Example:
        >>> train, test = hold_out(np.repeat([0, 1], 10), 0.3, seed=0)
        >>> len(train), len(test), int((test < 10).sum())
        (14, 6, 3)
    """
    share = DEFAULT_TEST_FRACTION if fraction is None else fraction
    if not 0 < share < 1:
        raise ConfigError(f"{key}={fraction}: must be between 0 and 1, both excluded")
    rng = np.random.default_rng([seed, draw])
    held = np.zeros(len(groups), dtype=bool)
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    for rows in np.split(order, borders):
        count = min(int(share * len(rows) + 0.5), len(rows) - 1)
        held[rng.permutation(rows)[:count]] = True
    if not held.any() and len(groups) > 1 and len(borders) == len(groups) - 1:
        raise ConfigError(
            f"{key}={share}: holds out none of the {len(groups)} rows, since each is the only one of its class or owner"
            " and stays for training; bring a split of its own (test-*, validation-*), or name another column as"
            " data.dataset.label or data.dataset.owner; whole numbers are targets with task=regression"
        )
    if not held.any():
        raise ConfigError(f"{key}={share}: holds out none of the {len(groups)} rows; raise it")
    return np.flatnonzero(~held), np.flatnonzero(held)


def refuse_test_fraction(name: str, test_fraction: float | None) -> None:
    """Refuse `data.test_fraction` for data with a test split.

    Raises:
        ConfigError: it is set.
    """
    if test_fraction is not None:
        raise ConfigError(f"data.test_fraction has no effect: {name} has a test split of its own")


def refuse_overlapping_rows(data: FederatedData, key: str, fraction: float) -> None:
    """Refuse to draw rows at random from windows of a series that overlap: what is held out would be trained on.

    Args:
        key, fraction: of the configuration, for the message.

    Raises:
        ConfigError: the rows overlap.
    """
    if data.rows_overlap:
        raise ConfigError(
            f"{key}={fraction:g}: the windows of {data.name} overlap, so that rows drawn at random would hold what"
            " others train on; hold out the last part of the time (data.dataset.validation), or set"
            " data.dataset.stride to the steps of a whole window"
        )


def require_rows(rows: int, name: str) -> None:
    """Refuse a data set that is too small to hold anything out.

    Raises:
        DataError: fewer than two rows.
    """
    if rows < 2:
        raise DataError(f"{name}: {rows} row(s), expected at least 2 to hold out a test split")
