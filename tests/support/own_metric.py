"""Metrics of one's own, importable by path: "own_metric:MeanSpecificity"."""

from torchmetrics import Metric
from torchmetrics.classification import MulticlassPrecision, MulticlassSpecificity


class MeanSpecificity(MulticlassSpecificity):
    """The specificity, mean over the classes."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="macro")


def precision(classes: int) -> Metric:
    """The precision of each class."""
    return MulticlassPrecision(classes, average=None)
