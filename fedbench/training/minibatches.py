"""Which rows a client trains on in which step: a function of (seed, round, client) and of nothing else."""

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
    """Positions 0..samples-1 in random order, a new permutation each epoch, cut into minibatches.

    Args:
        rng: draws the permutations.
        samples: the client's size.
        batch_size: samples a step; the last of an epoch may be smaller.
        epochs: number of passes; or None and
        steps: number of minibatches.
        smallest: a shorter last minibatch is left out, unless it is the only one (2 for batch normalisation,
            which cannot normalise a single value).
    """
    sizes = epoch_sizes(samples, batch_size, smallest)
    if epochs is not None:
        left = epochs * len(sizes)
    else:
        assert steps is not None
        left = steps
    while left > 0:
        order = rng.permutation(samples)
        start = 0
        for size in sizes[:left]:
            yield order[start : start + size]
            start += size
        left -= len(sizes)


def nth_minibatch(seed: int, client: int, visit: int, samples: int, sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """The minibatch of a client's `visit`-th work (from 0), where each work is one: epoch after epoch, each shuffled.

    Args:
        samples: the client's size.
        sizes: of the minibatches of an epoch, as `epoch_sizes` gives them.
    """
    epoch, place = divmod(visit, len(sizes))
    order = generator(seed, "minibatches", epoch, client).permutation(samples)
    start = sum(sizes[:place])
    return order[start : start + sizes[place]]


@dataclass(frozen=True)
class LocalLength:
    """How long a client trains in a round.

    Attributes:
        batch_size: samples a step.
        epochs: passes over its data; or None and steps: minibatches.
        smallest: as in `minibatches`.
    """

    batch_size: int
    epochs: int | None
    steps: int | None
    smallest: int = 1

    def steps_of(self, samples: int) -> int:
        """Minibatches that a client of this size trains on."""
        return sum(self.by_size(samples).values())

    def by_size(self, samples: int) -> Counter[int]:
        """The same by minibatch size."""
        return steps_by_size(samples, self.batch_size, epochs=self.epochs, steps=self.steps, smallest=self.smallest)

    def epoch(self, samples: int) -> list[int]:
        """The minibatch sizes of an epoch of a client of this size."""
        return epoch_sizes(samples, self.batch_size, self.smallest)

    def passes(self, samples: int) -> float:
        """Epochs that a client of this size trains for."""
        if self.epochs is not None:
            return float(self.epochs)
        assert self.steps is not None
        return self.steps / len(self.epoch(samples))


def epoch_sizes(samples: int, batch_size: int, smallest: int = 1) -> list[int]:
    """The minibatch sizes of one epoch.

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
    """How many steps of which minibatch size a client takes in a round; what FLOPs are counted from.

    >>> sorted(steps_by_size(105, 50, epochs=2, steps=None).items())
    [(5, 2), (50, 4)]
    """
    sizes = epoch_sizes(samples, batch_size, smallest)
    if epochs is not None:
        return Counter({size: times * epochs for size, times in Counter(sizes).items()})
    assert steps is not None
    whole, rest = divmod(steps, len(sizes))
    total = Counter({size: times * whole for size, times in Counter(sizes).items()})
    total.update(sizes[:rest])
    return total
