"""scikit-learn's digits with the opposite labels to train on. Importable by path: "flipped_digits:Flipped"."""

from dataclasses import replace
from pathlib import Path

from fedbench.data.base import FederatedData
from fedbench.data.digits import Digits


class Flipped(Digits):
    """Digits whose training rows have label 9 - y in place of y."""

    name: str = "flipped_digits:Flipped"

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        data = super().load(root, test_fraction=test_fraction, seed=seed)
        return replace(data, train=replace(data.train, labels=9 - data.train.labels))
