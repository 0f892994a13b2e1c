"""scikit-learn's handwritten digits: real data that needs no download."""

import hashlib
import importlib
from pathlib import Path

import numpy as np

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out
from fedbench.errors import ConfigError

MAXIMUM = 16
"""Largest value in the data, whose pixels count the set pixels of blocks of 4x4."""


class Digits(Dataset):
    """scikit-learn's digits: 1,797 grey images of 8x8, 10 classes, no download; test split drawn per class.

    The test part of Alpaydin and Kaynak's "Optical Recognition of Handwritten Digits" (UCI, 1998). Values 0..16 are
    scaled to 0..255. A `data.test_fraction` of each class (0.2 by default) is held out, drawn by the seed.
    """

    name: str = "digits"

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`.

        Raises:
            ConfigError: `data.root` is set, which would have no effect.
        """
        if root is not None:
            raise ConfigError(
                f"data.root={root}: has no effect with data.dataset={self.name}, part of scikit-learn; leave it out"
            )

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`.

        Raises:
            ConfigError: `data.root` is set, which would have no effect.
        """
        self.check(root)
        # Imported only now: scikit-learn takes a second to import, and nothing else needs it.
        bunch = importlib.import_module("sklearn.datasets").load_digits()
        labels = np.asarray(bunch.target, dtype=np.int64)
        images = np.rint(bunch.images * (255 / MAXIMUM)).astype(np.uint8)[..., None]
        train, test = hold_out(labels, test_fraction, seed)
        fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        digest = hashlib.sha256(images.tobytes() + labels.tobytes() + f"{fraction} {seed}".encode())
        return FederatedData(
            name=self.name,
            kind="image",
            train=Split(images[train], labels[train]),
            test=Split(images[test], labels[test]),
            class_names=tuple(str(digit) for digit in range(10)),
            mean=None,
            std=None,
            vocabulary_size=0,
            padding_index=-1,
            source=f"scikit-learn's digits, {fraction:g} of each class held out as the test split",
            fingerprint=digest.hexdigest(),
            test_split_by_seed=True,
        )
