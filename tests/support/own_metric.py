"""Metrics of one's own, importable by path: "own_metric:MeanSpecificity"."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassPrecision, MulticlassRecall, MulticlassSpecificity


class MeanSpecificity(MulticlassSpecificity):
    """The specificity, mean over the classes."""

    higher_is_better = True

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="macro")


def precision(classes: int) -> Metric:
    """The precision of each class."""
    return MulticlassPrecision(classes, average=None)


def recall(classes: int) -> Metric:
    """The recall of each class, which fails on labels that are no class."""
    return MulticlassRecall(classes, average=None)


def recall_of_what_counts(classes: int) -> Metric:
    """The recall of each class, without the places that have the label -100."""
    return MulticlassRecall(classes, average=None, ignore_index=-100)


class Hits(Metric):
    """The share of the places whose largest output is at their label; the label -100 is a miss."""

    hits: Tensor
    places: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        for name in ("hits", "places"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        self.hits += (outputs.argmax(1) == labels).sum()
        self.places += labels.numel()

    def compute(self) -> Tensor:
        return self.hits / self.places
