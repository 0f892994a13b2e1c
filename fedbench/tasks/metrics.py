"""The metrics of the tasks beside classification, by torchmetrics. Importing this module loads it: that takes seconds.

Each adds up over minibatches: its states are sums in float64, or counts.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex, MultilabelF1Score
from torchmetrics.regression import MeanAbsoluteError, R2Score
from torchmetrics.text import Perplexity

from fedbench.tasks.kinds import UNSCORED, TaskName


class R2(R2Score):
    """The coefficient of determination, mean over the targets; NaN of fewer than two rows, which have no variance."""

    def compute(self) -> Tensor:
        """float64, a scalar."""
        if int(torch.as_tensor(self.total)) < 2:
            return torch.tensor(math.nan)
        return super().compute()


def _in_float64(make: Callable[[], Metric]) -> Callable[[int], Metric]:
    return lambda outputs: make().set_dtype(torch.float64)


STOCK: dict[TaskName, dict[str, Callable[[int], Metric]]] = {
    "multilabel": {"macro_f1": lambda labels: MultilabelF1Score(labels, average="macro")},
    "regression": {"mae": _in_float64(MeanAbsoluteError), "r2": _in_float64(R2)},
    "next_token": {"perplexity": _in_float64(lambda: Perplexity(ignore_index=UNSCORED["int64"]))},
    "segmentation": {
        "mean_iou": lambda classes: MulticlassJaccardIndex(classes, average="macro", ignore_index=UNSCORED["int64"])
    },
}
"""{task: {name: makes the metric for a number of outputs}}."""


def judged(task: TaskName, outputs: Tensor) -> Tensor:
    """What the metrics of a task are updated with, beside the labels, in float64.

    Args:
        outputs: what the network puts out.

    Returns:
        Probabilities of classes [B, C] or of labels [B, K], predictions [B, K], logits of tokens [B, L, V], or logits
        of pixels [B, C, H, W].
    """
    # In float64, so that outputs that differ have probabilities that differ.
    match task:
        case "classification":
            return outputs.double().softmax(1)
        case "multilabel":
            return outputs.double().sigmoid()
        case _:
            return outputs.double()


def targets(task: TaskName, labels: Tensor) -> Tensor:
    """The labels with which the metrics of a task are updated: whole numbers as int64, -100 where no place counts.

    Args:
        labels: as data have them; of segmentation uint8 with 255, or int64 with -100, where no pixel counts.
    """
    if labels.dtype != torch.uint8:
        return labels
    whole = labels.long()
    return whole.masked_fill(labels == UNSCORED["uint8"], UNSCORED["int64"]) if task == "segmentation" else whole
