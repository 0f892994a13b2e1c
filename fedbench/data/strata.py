"""The classes of rows by which data are divided over clients and split: a row's label, or a range of its target."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedbench.data.base import FederatedData, IntArray, Labels

QUANTILES = 10
"""Ranges of the first target that a regression is divided by, each with as many training rows as the others."""

ALL = "all rows"


@dataclass(frozen=True)
class Strata:
    """The classes of the training rows of a data set.

    Attributes:
        names: of the classes, in their order.
        edges: of a regression the ends of the ranges but the last, which belong to the range below; else None.
        known: whether rows differ in class; else all are of the one class, and no partition by class is possible.
    """

    names: tuple[str, ...]
    edges: npt.NDArray[np.float32] | None = None
    known: bool = True

    def of(self, labels: Labels) -> IntArray:
        """The class of each row, int64 [N], each in 0..len(names)-1.

        Args:
            labels: labels of rows of any split of the data.
        """
        if not self.known:
            return np.zeros(len(labels), np.int64)
        if self.edges is None:
            return labels.astype(np.int64, copy=False)
        return np.searchsorted(self.edges, labels[:, 0], side="left").astype(np.int64)


def strata_of(data: FederatedData) -> Strata:
    """The classes by which the rows of a data set are divided.

    Of a classification they are its classes, and of a regression ranges of the first target between its deciles over
    the training rows (fewer where values are equal). The other tasks have none.
    """
    if data.task == "classification":
        return Strata(data.class_names)
    if data.task != "regression":
        return Strata((ALL,), known=False)
    first = np.asarray(data.train.labels[:, 0])
    edges = np.unique(np.quantile(first, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))
    edges = edges[edges < first.max()]
    ends = [f"{edge:.4g}" for edge in edges]
    target = data.class_names[0]
    names = [f"{target} <= {ends[0]}" if ends else target]
    names += [f"{low} < {target} <= {high}" for low, high in pairwise(ends)]
    return Strata((*names, f"{target} > {ends[-1]}") if ends else tuple(names), edges)
