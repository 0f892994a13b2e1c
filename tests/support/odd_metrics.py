"""Metrics of one's own, sound and broken ones. Importable by path: "odd_metrics:Name"."""

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassSpecificity


class Specificity(MulticlassSpecificity):
    """The mean specificity."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, average="macro")


class MeanOfBatches(Metric):
    """The mean over minibatches, whose states cannot be put together."""

    full_state_update = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("value", torch.zeros(()), dist_reduce_fx="mean")

    def update(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        self.value = (probabilities.argmax(1) == labels).float().mean()

    def compute(self) -> torch.Tensor:
        return self.value


class SumOfMeans(MeanOfBatches):
    """Says that its state is a sum, which it is not."""

    def __init__(self, classes: int) -> None:
        Metric.__init__(self)
        self.add_state("value", torch.zeros(()), dist_reduce_fx="sum")


class NeedsScores(Specificity):
    """Fails on what it is given."""

    def update(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        raise RuntimeError("no boxes\nfound")


class Complex(Specificity):
    """Comes to a number that is not real."""

    def compute(self) -> torch.Tensor:
        return super().compute() * 1j


class NoValues(Specificity):
    """Comes to nothing."""

    def compute(self) -> torch.Tensor:
        return torch.zeros(0)


def one_vs_rest(classes: int) -> Metric:
    return MulticlassAUROC(classes, average=None, thresholds=None)


def several(classes: int) -> MetricCollection:
    return MetricCollection([MulticlassAccuracy(classes)])


def not_a_metric(classes: int) -> int:
    return classes
