"""Minibatches: every row once an epoch, and as many steps as were counted beforehand."""

from collections import Counter

import numpy as np
import pytest

from fedbench.training.minibatches import minibatches, steps_by_size

CASES = [(105, 50, 1), (100, 50, 1), (101, 50, 2), (7, 50, 1), (1, 50, 2), (50, 50, 2), (33, 16, 2)]


@pytest.mark.parametrize(("samples", "batch_size", "smallest"), CASES)
@pytest.mark.parametrize(("epochs", "steps"), [(1, None), (3, None), (None, 1), (None, 2), (None, 7)])
def test_the_steps_taken_are_the_steps_counted(
    samples: int, batch_size: int, smallest: int, epochs: int | None, steps: int | None
) -> None:
    batches = list(
        minibatches(np.random.default_rng(0), samples, batch_size, epochs=epochs, steps=steps, smallest=smallest)
    )
    counted = steps_by_size(samples, batch_size, epochs=epochs, steps=steps, smallest=smallest)
    assert Counter(len(batch) for batch in batches) == counted
    if steps is not None:
        assert len(batches) == steps


def test_an_epoch_visits_every_row_once_in_another_order_each_time() -> None:
    batches = list(minibatches(np.random.default_rng(1), 105, 50, epochs=2, steps=None))
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    np.testing.assert_array_equal(np.sort(first), np.arange(105))
    np.testing.assert_array_equal(np.sort(second), np.arange(105))
    assert (first != second).any()


def test_a_single_sample_is_left_out_only_beside_others() -> None:
    assert steps_by_size(101, 50, epochs=1, steps=None, smallest=2) == {50: 2}
    assert steps_by_size(101, 50, epochs=1, steps=None, smallest=1) == {50: 2, 1: 1}
    assert steps_by_size(1, 50, epochs=1, steps=None, smallest=2) == {1: 1}
