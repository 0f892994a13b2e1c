"""fedbench's own choice of torchmetrics' metrics. Importing this module loads torchmetrics, which takes seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassStatScores,
)
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

TOP = 5
BINS = 15
"""Bins of the calibration error (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2)."""


class PerClassRecall(MulticlassStatScores):
    """The share of each class's rows that is recognised; NaN for a class without rows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None)

    def compute(self) -> Tensor:
        """float64 [C]."""
        true_positives, false_negatives = torch.as_tensor(self.tp), torch.as_tensor(self.fn)
        return true_positives.double() / (true_positives + false_negatives)


class BalancedAccuracy(PerClassRecall):
    """The mean recall of the classes that have rows."""

    def compute(self) -> Tensor:
        """float64, a scalar."""
        return torch.nanmean(super().compute())


@dataclass(frozen=True)
class Stock:
    """One of fedbench's metrics.

    Attributes:
        make: makes it for a number of classes.
        least_classes: classes that a data set must have for the metric to say anything.
    """

    make: Callable[[int], Metric]
    least_classes: int = 2

    def refusal(self, classes: int) -> str | None:
        """Why the metric says nothing of data with so many classes; None where it does."""
        if classes >= self.least_classes:
            return None
        return f"is 1 for every model of {classes} classes; leave it out"


STOCK: dict[str, Stock] = {
    "top5_accuracy": Stock(lambda classes: MulticlassAccuracy(classes, top_k=TOP, average="micro"), TOP + 1),
    "balanced_accuracy": Stock(BalancedAccuracy),
    "macro_f1": Stock(lambda classes: MulticlassF1Score(classes, average="macro")),
    "per_class_recall": Stock(PerClassRecall),
    "expected_calibration_error": Stock(lambda classes: MulticlassCalibrationError(classes, n_bins=BINS, norm="l1")),
}
"""fedbench's metrics, by the names of `fedbench.training.metric_names`."""

MERGES: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    dim_zero_sum: torch.add,
    dim_zero_max: torch.maximum,
    dim_zero_min: torch.minimum,
}
"""How two states of a metric become that of both minibatches, by torchmetrics' reduction."""


def fault_of(metric: object) -> str | None:
    """Why the states of a metric cannot be put together minibatch by minibatch; None where they can."""
    if not isinstance(metric, Metric):
        return f"gave {type(metric).__name__}; a torchmetrics.Metric is needed"
    if not metric._reductions:
        return "keeps no state of its own; a metric that is no collection or wrapper of others is needed"
    for name, reduction in metric._reductions.items():
        is_list = isinstance(metric._defaults[name], list)
        if reduction not in ((dim_zero_cat,) if is_list else tuple(MERGES)):
            allowed = "dist_reduce_fx='cat'" if is_list else "dist_reduce_fx='sum', 'min' or 'max'"
            return f"its state {name} cannot be put together from minibatches; declare it with {allowed}"
    return None
