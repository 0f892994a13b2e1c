"""Minibatches that are prepared many at a time are, bit for bit, those that are prepared one by one."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedbench.data.augment import MinibatchDraws, prepare
from fedbench.data.augmentation import Augmentation
from fedbench.training.minibatches import minibatches
from fedbench.training.prepared import ALIGNMENT, prepared_minibatches

MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
ROWS = np.arange(90)[::-2].copy()
EVERYTHING = Augmentation(flip=True, rotate=15, crop=2)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (90, 7, 5, 3), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(0, 5, 90))


def positions() -> Iterator[np.ndarray]:
    return minibatches(np.random.default_rng(1), len(ROWS), 8, epochs=3, steps=None)


def prepared(
    data: tuple[torch.Tensor, torch.Tensor], augmentation: Augmentation | None, budget: int | None
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[int]]:
    """The minibatches, and the number of samples of each call of the transform."""
    sizes: list[int] = []

    def transform(batch: torch.Tensor, draws: MinibatchDraws | None) -> torch.Tensor:
        sizes.append(len(batch))
        return prepare(batch, augmentation, MEAN, STD, draws)

    rng = np.random.default_rng(2)
    return list(prepared_minibatches(*data, ROWS, positions(), transform, rng, budget)), sizes


@pytest.mark.parametrize("augmentation", [None, EVERYTHING, Augmentation(crop=2, crop_border="mean", rotate=15)])
@pytest.mark.parametrize("budget", [0, 1, 7 * 5 * 3 * 4 * 20, 1 << 30, None])
def test_the_budget_does_not_change_a_bit(
    data: tuple[torch.Tensor, torch.Tensor], augmentation: Augmentation | None, budget: int | None
) -> None:
    images, labels = data
    rng = np.random.default_rng(2)
    batches, _ = prepared(data, augmentation, budget)
    for (inputs, targets), minibatch in zip(batches, positions(), strict=True):
        alone = prepare(images[ROWS[minibatch]], augmentation, MEAN, STD, rng)
        assert torch.equal(inputs, alone)
        assert inputs.stride() == alone.stride()
        assert torch.equal(targets, labels[ROWS[minibatch]])
        assert inputs.data_ptr() % ALIGNMENT == 0, "as a tensor of its own would be"


@pytest.mark.parametrize(("minibatches_at_a_time", "largest"), [(0.5, 8), (1, 8), (2.5, 16), (4, 32)])
def test_no_more_is_prepared_at_a_time_than_the_budget_allows(
    data: tuple[torch.Tensor, torch.Tensor], minibatches_at_a_time: float, largest: int
) -> None:
    budget = int(minibatches_at_a_time * 8 * 7 * 5 * 3 * 4)
    _, sizes = prepared(data, EVERYTHING, budget)
    assert max(sizes) == largest, "one minibatch at least, whole minibatches only"
    assert sum(sizes) == 3 * len(ROWS)


def test_a_large_budget_prepares_everything_at_once(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert prepared(data, None, 1 << 30)[1] == [3 * len(ROWS)]


def test_a_client_without_minibatches_prepares_nothing(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    rng = np.random.default_rng(0)
    assert list(prepared_minibatches(*data, ROWS, iter([]), lambda batch, _: batch, rng)) == []


def test_token_ids_are_counted_in_their_wider_form() -> None:
    tokens, sizes = torch.arange(80, dtype=torch.int32).view(20, 4), []

    def transform(batch: torch.Tensor, _: MinibatchDraws | None) -> torch.Tensor:
        sizes.append(len(batch))
        return batch.long()

    order = minibatches(np.random.default_rng(1), 20, 5, epochs=1, steps=None)
    rng = np.random.default_rng(2)
    batches = list(prepared_minibatches(tokens, torch.arange(20), np.arange(20), order, transform, rng, 10 * 4 * 8))
    assert sizes == [10, 10]
    assert all(torch.equal(inputs[:, 0], 4 * labels) for inputs, labels in batches)
