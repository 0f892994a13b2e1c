"""Scores of evaluation minibatches and their sums, as plain values without PyTorch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

ScoredSplit = Literal["test", "validation"]
"""The splits that the global model is scored on. What is chosen is chosen on validation, if there is such a split."""


MetricState = Mapping[str, Any]
"""{name: array, or a tuple of arrays}: what a metric keeps of the rows that it has seen (`fedbench.training.metrics`).
"""


@dataclass(frozen=True)
class EvaluationBatch:
    """One minibatch of an evaluation: rows [start, stop) of a split."""

    split: ScoredSplit
    start: int
    stop: int


@dataclass(frozen=True)
class BatchScore:
    """The score of one minibatch.

    Attributes:
        samples: what the loss is the sum over: rows, or the tokens or pixels of the rows that count.
        loss_sum: sum of the samples' losses: cross-entropies in nats, or squared errors.
        correct: number of samples whose largest output is at their label; None for tasks without such a label.
        split: the split that the minibatch is of.
        states: of each further metric, in their order; (): of none, or where an output is not finite.
    """

    samples: int
    loss_sum: float
    correct: int | None
    split: ScoredSplit = "test"
    states: tuple[MetricState, ...] = ()


@dataclass(frozen=True)
class RowsScore:
    """The score of a model on some rows.

    Attributes:
        samples: number of rows, at least 1.
        loss: mean cross-entropy in nats.
        accuracy: 0..1; NaN for tasks without one.
        score: the metric by which the task is judged, where that is not the accuracy; else, or unknown, NaN.
    """

    samples: int
    loss: float
    accuracy: float
    score: float = math.nan

    @classmethod
    def of(cls, scores: Sequence[BatchScore], rows: int, score: float = math.nan) -> "RowsScore":
        """The score of all minibatches together, added in the order given.

        Args:
            scores: of the minibatches.
            rows: number of rows of all of them.
            score: see the class.
        """
        loss, accuracy = total_score(scores)
        return cls(rows, loss, math.nan if accuracy is None else accuracy, score)


class Metrics(Protocol):
    """Puts the states of minibatches together (`fedbench.training.metrics.EvaluationMetrics`)."""

    def figures(self, scores: Sequence[BatchScore]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Scores:
    """Mean loss and accuracy in 0..1 of the global model on each split; None on a split that is not there.

    The accuracy is None for tasks without one, too. `figures` are the further metrics, by the columns of
    `rounds.parquet`.
    """

    test_loss: float | None = None
    test_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Sequence[BatchScore], metrics: "Metrics | None" = None) -> "Scores":
        """The scores of all minibatches of an evaluation, added in the order given.

        Args:
            scores: of the minibatches.
            metrics: what the minibatches' states are states of; None: they have none.
        """
        by_split = {split: [score for score in scores if score.split == split] for split in ("test", "validation")}
        totals = {split: total_score(parts) if parts else (None, None) for split, parts in by_split.items()}
        figures = {} if metrics is None else metrics.figures(scores)
        (test_loss, test_accuracy), (validation_loss, validation_accuracy) = totals["test"], totals["validation"]
        return cls(test_loss, test_accuracy, validation_loss, validation_accuracy, figures)


def batch_borders(samples: int, batch_size: int) -> list[tuple[int, int]]:
    """The borders [start, stop) of each evaluation minibatch of a split with `samples` samples."""
    return [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]


def evaluation_batches(rows: Mapping[ScoredSplit, int], batch_size: int) -> tuple[EvaluationBatch, ...]:
    """The minibatches of an evaluation, split after split.

    Args:
        rows: number of rows of each split.
        batch_size: samples of a minibatch.
    """
    return tuple(
        EvaluationBatch(split, start, stop)
        for split, count in rows.items()
        for start, stop in batch_borders(count, batch_size)
    )


def total_score(scores: Sequence[BatchScore]) -> tuple[float, float | None]:
    """Mean loss, and accuracy in 0..1, over all minibatches, added in the order given.

    The accuracy is None for tasks without one, and the loss NaN where no sample counts.
    """
    samples = sum(score.samples for score in scores)
    if not samples:
        return math.nan, None
    loss = sum(score.loss_sum for score in scores) / samples
    hits = [score.correct for score in scores if score.correct is not None]
    return loss, sum(hits) / samples if len(hits) == len(scores) else None
