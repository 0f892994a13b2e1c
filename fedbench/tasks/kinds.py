"""The kinds of task that a model is trained for, and the metric by which each is judged. Without PyTorch."""

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classification", "multilabel", "regression", "next_token", "segmentation"]

UNSCORED = {"int64": -100, "uint8": 255}
"""For each type of labels with a place for every token or pixel: the label of a place that does not count."""


@dataclass(frozen=True)
class Headline:
    """The metric by which a task is judged: its best value is the best round's, targets are values of it.

    Attributes:
        name: as in the columns of `rounds.parquet` behind the split, "accuracy" of "test_accuracy".
        higher_is_better: whether the best value is the largest.
        percent: whether it is a share in 0..1, which readers are shown in percent.
    """

    name: str
    higher_is_better: bool
    percent: bool

    @property
    def words(self) -> str:
        """The name as readers are shown it.

        >>> TASKS["segmentation"].headline.words
        'mean IoU'
        """
        return WORDS.get(self.name, self.name.replace("_", " "))

    def better(self, left: float, right: float) -> bool:
        """Whether `left` is better than `right`; a comparison with NaN is false."""
        return left > right if self.higher_is_better else left < right

    def reached(self, value: float, target: float) -> bool:
        """Whether a value is the target or better."""
        return value == target or self.better(value, target)


@dataclass(frozen=True)
class TaskKind:
    """A kind of task.

    Attributes:
        name: as in the key `task`.
        headline: the metric by which it is judged.
        metrics: the metrics beside the loss that every evaluation has, the headline first.
        counts_hits: whether the largest output is compared with the label, and the share that agrees is the accuracy.
        places: what one loss is of: a row, or one of its tokens or pixels.
        outputs: what the outputs of a network are for, one each, in words.
        labels: what the labels of N rows are, for messages.
    """

    name: TaskName
    headline: Headline
    metrics: tuple[str, ...]
    counts_hits: bool
    places: Literal["row", "token", "pixel"]
    outputs: Literal["classes", "labels", "targets", "token ids"]
    labels: str


WORDS = {"mae": "MAE", "r2": "R2", "mean_iou": "mean IoU", "macro_f1": "macro F1"}
"""Names of metrics as readers are shown them, where an underscore for a space is not enough."""

TASKS: dict[TaskName, TaskKind] = {
    "classification": TaskKind(
        "classification",
        Headline("accuracy", True, True),
        ("accuracy",),
        True,
        "row",
        "classes",
        "int64 [N], one class a row",
    ),
    "multilabel": TaskKind(
        "multilabel",
        Headline("macro_f1", True, True),
        ("macro_f1",),
        False,
        "row",
        "labels",
        "uint8 [N, K], 1 for each label that applies",
    ),
    "regression": TaskKind(
        "regression",
        Headline("mae", False, False),
        ("mae", "r2"),
        False,
        "row",
        "targets",
        "float32 [N, K], K targets a row",
    ),
    "next_token": TaskKind(
        "next_token",
        Headline("perplexity", False, False),
        ("perplexity", "accuracy"),
        True,
        "token",
        "token ids",
        "int64 [N, L], the token that follows each, -100 where none counts",
    ),
    "segmentation": TaskKind(
        "segmentation",
        Headline("mean_iou", True, True),
        ("mean_iou", "accuracy"),
        True,
        "pixel",
        "classes",
        "uint8 [N, H, W], the class of each pixel, 255 where none counts, or int64 with -100",
    ),
}
"""The tasks by name.

Losses: cross-entropy over rows, tokens or pixels; of multilabel the binary cross-entropy of logits, and of regression
the squared error, each the mean over a row's labels or targets (`fedbench.tasks.losses`).
"""


def headline_of(task: TaskName) -> Headline:
    """The metric by which a task is judged."""
    return TASKS[task].headline
