"""Scores of evaluation minibatches and their sums, as plain values without PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchScore:
    """The score of one minibatch.

    Attributes:
        samples: samples of the minibatch.
        loss_sum: sum of the samples' cross-entropies, in nats.
        correct: number of samples whose largest output is at their label.
    """

    samples: int
    loss_sum: float
    correct: int


def batch_borders(samples: int, batch_size: int) -> list[tuple[int, int]]:
    """The borders [start, stop) of each evaluation minibatch of a split with `samples` samples."""
    return [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]


def total_score(scores: Sequence[BatchScore]) -> tuple[float, float]:
    """Mean loss in nats and accuracy in 0..1 over all minibatches, added in the order given."""
    samples = sum(score.samples for score in scores)
    loss = sum(score.loss_sum for score in scores) / samples
    return loss, sum(score.correct for score in scores) / samples
