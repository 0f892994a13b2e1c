"""What a data set is to the rest of fedbench: arrays, ready to be indexed by client."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedbench.components.base import Component

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        inputs: images uint8 [N, H, W, C], or token ids int32 [N, L]; may be memory-mapped and read-only.
        labels: int64 [N], each in 0..classes-1.
        owners: int64 [N], the natural client of each row (FEMNIST's writer), or None.
    """

    inputs: npt.NDArray[np.uint8] | npt.NDArray[np.int32]
    labels: IntArray
    owners: IntArray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FederatedData:
    """A decoded data set.

    Attributes:
        name: the data set's name, as configured.
        kind: "image" or "text".
        train, test: the splits.
        class_names: one per class, in label order.
        mean, std: per channel, in units of [0, 1]; None where none is published (text; or scale only).
        vocabulary_size: number of token ids (text), 0 for images.
        padding_index: token id of padding (text), -1 for images.
        source: in words, where the rows came from (no absolute path of the machine's home is needed).
        fingerprint: hex digest over the decoded arrays' sources: equal content, equal fingerprint.
        test_split_by_seed: the test split was drawn by the seed, so that another seed has another one.
    """

    name: str
    kind: Literal["image", "text"]
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    vocabulary_size: int
    padding_index: int
    source: str
    fingerprint: str
    test_split_by_seed: bool = False

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image, (L,) of a text."""
        return tuple(self.train.inputs.shape[1:])


class Dataset(Component):
    """A data set that can be loaded from `data.root` (or from nowhere, when it ships with a library)."""

    @abstractmethod
    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """Read, decode and check the data, from the cache where it was decoded before.

        Args:
            root: `data.root`; None when not set.
            test_fraction: share of the rows held out, in (0, 1); only for data without a test split of its own.
            seed: seeds the split drawn with `test_fraction`.

        Raises:
            DataError: missing, damaged or foreign data; the text says what was looked for and how to get it.
            ConfigError: an option that would have no effect (a `test_fraction` for data with a test split).
        """

    def outline(self) -> FederatedData | None:
        """Data of the published size and shape, balanced and without content, where that is known beforehand.

        Enough to say what a run will cost.
        """
        return None
