"""Tables that come with scikit-learn, or that its cache has."""

import hashlib
import importlib
import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out
from fedbench.data.moments import moments
from fedbench.errors import ConfigError, DataError
from fedbench.system.home import expanded


@dataclass(frozen=True)
class TableRows:
    """A table.

    Attributes:
        inputs: float32 [N, F].
        labels: int64 [N] of a classification, float32 [N, 1] of a regression.
        names: of the classes, or of the target.
    """

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    names: tuple[str, ...]


class SklearnTable(Dataset):
    """A table that scikit-learn reads; `data.test_fraction` of its rows (0.2 by default) is held out by the seed."""

    @abstractmethod
    def read(self) -> TableRows:
        """The table.

        Raises:
            DataError: it is not on this machine; says how to get it.
        """

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`.

        Raises:
            ConfigError: `data.root` is set, which would have no effect.
        """
        if root is not None:
            raise ConfigError(
                f"data.root={root}: has no effect with data.dataset={self.name}, which scikit-learn reads; leave it out"
            )

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        self.check(root)
        rows = self.read()
        task: Literal["classification", "regression"] = "regression" if rows.labels.ndim == 2 else "classification"
        groups = rows.labels if task == "classification" else np.zeros(len(rows.labels), np.int64)
        train, test = hold_out(groups, test_fraction, seed)
        fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        digest = hashlib.sha256(rows.inputs.tobytes() + rows.labels.tobytes() + f"{fraction} {seed}".encode())
        mean, std = moments(rows.inputs[train])
        share = f"{fraction:g} of {'each class' if task == 'classification' else 'the rows'}"
        return FederatedData(
            name=self.name,
            kind="array",
            task=task,
            train=Split(rows.inputs[train], rows.labels[train]),
            test=Split(rows.inputs[test], rows.labels[test]),
            class_names=rows.names,
            mean=mean,
            std=std,
            vocabulary_size=0,
            padding_index=-1,
            source=f"scikit-learn's {self.name} table, {share} held out as the test split",
            fingerprint=digest.hexdigest(),
            test_split_by_seed=True,
            scaling_axis=-1,
        )


class BreastCancer(SklearnTable):
    """Breast cancer Wisconsin: 569 rows of 30 measurements of cell nuclei, 2 classes; in scikit-learn, no download.

    Wolberg, Mangasarian, Street and Street, "Breast Cancer Wisconsin (Diagnostic)" (UCI, 1995).
    """

    name: str = "breast-cancer"

    def read(self) -> TableRows:
        """See `SklearnTable.read`."""
        bunch = importlib.import_module("sklearn.datasets").load_breast_cancer()
        names = tuple(str(name) for name in bunch.target_names)
        return TableRows(bunch.data.astype(np.float32), bunch.target.astype(np.int64), names)


class Diabetes(SklearnTable):
    """Diabetes: 442 patients, 10 measurements, and how far the disease went in a year; in scikit-learn, no download.

    A regression; Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression" (Annals of Statistics, 2004). The
    measurements are in their own units.
    """

    name: str = "diabetes"

    def read(self) -> TableRows:
        """See `SklearnTable.read`."""
        bunch = importlib.import_module("sklearn.datasets").load_diabetes(scaled=False)
        return TableRows(bunch.data.astype(np.float32), bunch.target.astype(np.float32)[:, None], ("progression",))


class CaliforniaHousing(SklearnTable):
    """California housing: 20,640 districts, 8 values, and the median price of a house; from scikit-learn's cache.

    A regression, prices in 100,000 dollars; Pace and Barry, "Sparse Spatial Autoregressions" (Statistics & Probability
    Letters, 1997). Nothing is downloaded: scikit-learn's own function is called once beforehand.
    """

    name: str = "california-housing"

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`.

        Raises:
            ConfigError: `data.root` is set, which would have no effect.
            DataError: scikit-learn's cache has no such table.
        """
        super().check(root)
        cache = expanded(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data"))
        if not any(cache.glob("cal_housing*.pkz")):
            raise DataError(
                f"{self.name}: not in scikit-learn's cache {cache} (SCIKIT_LEARN_DATA); on a machine with a network run"
                " python -c 'from sklearn.datasets import fetch_california_housing as f; f()' and copy that folder"
            )

    def read(self) -> TableRows:
        """See `SklearnTable.read`."""
        try:
            bunch = importlib.import_module("sklearn.datasets").fetch_california_housing(download_if_missing=False)
        except Exception as error:  # unpickling raises whatever the damage leads to
            raise DataError(
                f"{self.name}: scikit-learn cannot read its cache ({' '.join(str(error).split())[:120]}); remove"
                " cal_housing*.pkz there, and get it again"
            ) from error
        return TableRows(bunch.data.astype(np.float32), bunch.target.astype(np.float32)[:, None], ("median price",))
