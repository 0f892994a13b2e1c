"""scikit-learn's handwritten digits: real data that needs no download."""

import hashlib
import importlib
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out
from fedbench.errors import ConfigError

MAXIMUM = 16
"""Largest value in the data, whose pixels count the set pixels of blocks of 4x4."""

FILE = ("datasets", "data", "digits.csv.gz")
"""The path of the digits in scikit-learn's package: a CSV file whose rows are 64 pixels and the label of an image."""


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
        values, labels = read_digits()
        images = np.rint(values * (255 / MAXIMUM)).astype(np.uint8)[..., None]
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


def read_digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Images [1797, 8, 8] with values 0..16, and labels [1797], as `sklearn.datasets.load_digits` gives them.

    The file that scikit-learn has them in is read by itself, where it is in its place: to import scikit-learn takes a
    second and nothing else needs it.
    """
    package = importlib.util.find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or []
    for file in (Path(folder, *FILE) for folder in folders):
        if file.is_file():
            table = _table(file)
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    bunch = importlib.import_module("sklearn.datasets").load_digits()
    return bunch.images, np.asarray(bunch.target, dtype=np.int64)


@cache
def _table(file: Path) -> npt.NDArray[np.float64]:
    """The numbers of scikit-learn's file, read-only; a process reads it once, for all of its runs."""
    table = np.loadtxt(file, delimiter=",", dtype=np.float64)
    table.flags.writeable = False
    return table
