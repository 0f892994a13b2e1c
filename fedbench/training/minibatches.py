"""The rows that a client trains on in each step, which are a function of (seed, round, client) alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.randomness import generator


def minibatches(
    rng: np.random.Generator,
    samples: int,
    batch_size: int,
    *,
    epochs: int | None,
    steps: int | None,
    smallest: int = 1,
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield minibatches of positions 0..samples-1, from a new permutation in each epoch.

    Args:
        rng: draws the permutations.
        samples: number of the client's samples.
        batch_size: samples of a minibatch; the last one of an epoch may be smaller.
        epochs: number of passes over the samples; None where `steps` is set.
        steps: number of minibatches; None where `epochs` is set.
        smallest: a shorter last minibatch of an epoch is left out, unless it is the only one (2 for batch
            normalisation, which cannot normalise a single value).

    Yields:
        int64 [B], the positions of one minibatch.
    """
    sizes = epoch_sizes(samples, batch_size, smallest)
    if epochs is not None:
        steps_left = epochs * len(sizes)
    else:
        assert steps is not None
        steps_left = steps
    while steps_left > 0:
        order = rng.permutation(samples)
        start = 0
        for size in sizes[:steps_left]:
            yield order[start : start + size]
            start += size
        steps_left -= len(sizes)


def nth_minibatch(seed: int, client: int, visit: int, samples: int, sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """The minibatch of a client's task, where every task is one minibatch: epoch after epoch, each shuffled.

    Args:
        seed: seed of the experiment.
        client: the client.
        visit: number of tasks that the client has had before.
        samples: number of the client's samples.
        sizes: sizes of the minibatches of an epoch, as `epoch_sizes` gives them.

    Returns:
        int64 [B], positions among the client's samples.
    """
    epoch, index = divmod(visit, len(sizes))
    order = generator(seed, "minibatches", epoch, client).permutation(samples)
    start = sum(sizes[:index])
    return order[start : start + sizes[index]]


@dataclass(frozen=True)
class LocalLength:
    """The length of a client's training in a round.

    Attributes:
        batch_size: samples of a minibatch.
        epochs: passes over the client's data; None where `steps` is set.
        steps: minibatches; None where `epochs` is set.
        smallest: the smallest minibatch to train on, as in `minibatches`.
    """

    batch_size: int
    epochs: int | None
    steps: int | None
    smallest: int = 1

    def steps_of(self, samples: int) -> int:
        """Number of minibatches that a client with `samples` samples trains on."""
        return sum(self.by_size(samples).values())

    def by_size(self, samples: int) -> Counter[int]:
        """{minibatch size: number of minibatches} that a client with `samples` samples trains on."""
        return steps_by_size(samples, self.batch_size, epochs=self.epochs, steps=self.steps, smallest=self.smallest)

    def samples_of(self, samples: int) -> int:
        """Number of samples that a client with `samples` samples trains on, each counted as often as it is used."""
        return sum(size * times for size, times in self.by_size(samples).items())

    def epoch(self, samples: int) -> list[int]:
        """Sizes of the minibatches in an epoch of a client with `samples` samples."""
        return epoch_sizes(samples, self.batch_size, self.smallest)

    def passes(self, samples: int) -> float:
        """Number of epochs, perhaps fractional, for which a client with `samples` samples trains."""
        if self.epochs is not None:
            return float(self.epochs)
        assert self.steps is not None
        return self.steps / len(epoch_sizes(samples, self.batch_size, self.smallest))


def epoch_sizes(samples: int, batch_size: int, smallest: int = 1) -> list[int]:
    """Sizes of the minibatches of one epoch; arguments as for `minibatches`.

    >>> epoch_sizes(105, 50)
    [50, 50, 5]
    >>> epoch_sizes(101, 50, smallest=2)
    [50, 50]
    """
    full, rest = divmod(samples, batch_size)
    keep_rest = rest >= smallest or (rest > 0 and full == 0)
    return [batch_size] * full + ([rest] if keep_rest else [])


def steps_by_size(
    samples: int, batch_size: int, *, epochs: int | None, steps: int | None, smallest: int = 1
) -> Counter[int]:
    """{minibatch size: number of steps} of a client's round, for counting FLOPs; arguments as for `minibatches`.

    >>> sorted(steps_by_size(105, 50, epochs=2, steps=None).items())
    [(5, 2), (50, 4)]
    """
    sizes = epoch_sizes(samples, batch_size, smallest)
    if epochs is not None:
        return Counter({size: times * epochs for size, times in Counter(sizes).items()})
    assert steps is not None
    epochs_done, remaining_steps = divmod(steps, len(sizes))
    total = Counter({size: times * epochs_done for size, times in Counter(sizes).items()})
    total.update(sizes[:remaining_steps])
    return total
