"""Base class of data sets, and the arrays that they load."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from fedbench.components.base import Component
from fedbench.data.moments import moments
from fedbench.tasks.kinds import TASKS, UNSCORED, TaskName

IntArray = npt.NDArray[np.int64]
Inputs = npt.NDArray[Any]
Labels = npt.NDArray[Any]

InputKind = Literal["image", "text", "array"]


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        inputs: images uint8 [N, H, W, C], token ids int32 [N, L], or arrays float32 [N, ...], such as rows of a table
            [N, F] or series [N, C, L]; may be memory-mapped and read-only.
        labels: by the data's task; of classification int64 [N], each in 0..classes-1, of the others as
            `fedbench.tasks.kinds.TASKS` says.
        owners: int64 [N], the natural client of each row (FEMNIST's writer), or None.
    """

    inputs: Inputs
    labels: Labels
    owners: IntArray | None = None

    def __len__(self) -> int:
        return len(self.labels)


def counted(labels: Labels, task: TaskName) -> Labels:
    """The labels of the rows, tokens or pixels that count; of tokens and pixels in one dimension.

    Args:
        labels: of a split, as the task has them.
        task: the task.
    """
    return labels[labels != UNSCORED[str(labels.dtype)]] if TASKS[task].places != "row" else labels


@dataclass(frozen=True)
class FederatedData:
    """A decoded data set.

    Attributes:
        name: the data set's name, as configured.
        kind: "image", "text" or "array".
        train, test: the splits.
        validation: the split on which rounds, and configurations, are chosen; None: the data have none.
        class_names: the names of the classes, in label order; of multilabel those of the labels, of regression of the
            targets, and of next_token of the token ids, or ().
        mean, std: mean and standard deviation by which inputs are normalised; None: they are not. Of images one for
            each channel, in units of [0, 1]; of arrays one for each entry of the last axis, or for each value of a row;
            None for text.
        vocabulary_size: number of token ids of text, 0 for images and arrays.
        padding_index: token id of padding in text, -1 for images and arrays.
        source: where the rows come from, in words and without absolute paths.
        fingerprint: hex digest of the content; equal content has an equal fingerprint.
        test_split_by_seed: whether the seed draws the test split, so that another seed has another one.
        validation_by_seed: whether the seed draws the validation split.
        test_rows_in_train: number of test rows whose inputs are those of a training row, too, as far as it was counted.
        task: what is learned of the data; another one can be asked for (`task`).
        class_values: of a classification the number that each class stands for, which is the target if the task is a
            regression; None: its index.
        tokenizer: identifies the tokenizer of a model folder by which texts were cut into tokens; "": there is none.
        rows_overlap: whether rows beside each other hold the same measurements, as windows of a series do; rows that
            are drawn at random for validation would hold what others train on, and are refused.
        scaling_axis: of arrays [N, ...], the axis by whose entries `mean` and `std` were taken of the training rows, as
            `fedbench.data.moments` takes them; they are taken again where rows are held out. None: they are given.
        remarks: what a user should know of where the rows come from, one line each.
    """

    name: str
    kind: InputKind
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
    test_rows_in_train: int = 0
    validation: Split | None = None
    validation_by_seed: bool = False
    task: TaskName = "classification"
    class_values: tuple[float, ...] | None = None
    tokenizer: str = ""
    rows_overlap: bool = False
    scaling_axis: int | None = None
    remarks: tuple[str, ...] = ()

    def scaled_without(self, held: IntArray) -> Self:
        """The data with `mean` and `std` of all training rows but some, where they are taken of training rows."""
        if self.scaling_axis is None:
            return self
        mean, std = moments(np.delete(self.train.inputs, held, axis=0), self.scaling_axis)
        return replace(self, mean=mean, std=std)

    @property
    def scored_rows(self) -> dict[Literal["test", "validation"], int]:
        """Number of rows of each split that the global model is scored on."""
        rows: dict[Literal["test", "validation"], int] = {"test": len(self.test)}
        return rows if self.validation is None else rows | {"validation": len(self.validation)}

    @property
    def splits(self) -> dict[Literal["train", "test", "validation"], Split]:
        """The splits by name."""
        splits: dict[Literal["train", "test", "validation"], Split] = {"train": self.train, "test": self.test}
        return splits if self.validation is None else splits | {"validation": self.validation}

    @property
    def all_scored_count(self) -> bool:
        """Whether every row, token or pixel of the splits that the global model is scored on counts."""
        scored = [split for name, split in self.splits.items() if name != "train"]
        return all(counted(split.labels, self.task).size == split.labels.size for split in scored)

    @property
    def classes(self) -> int:
        """Number of `class_names`: of classes, labels, or targets."""
        return len(self.class_names)

    @property
    def outputs(self) -> int:
        """Number of outputs of a network for a row, a token or a pixel: classes, labels, targets, or token ids."""
        return self.vocabulary_size if self.task == "next_token" else self.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row: (H, W, C) of an image, (L,) of a text."""
        return tuple(self.train.inputs.shape[1:])


class Dataset(Component):
    """A data set that is loaded from `data.root`, or comes with a library."""

    @abstractmethod
    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """Read, decode and check the data, from the cache where it was decoded before.

        Args:
            root: `data.root`; None: not set.
            test_fraction: share of the rows that is held out for testing, in (0, 1); only for data without a test
                split. None: not set.
            seed: seed of the draw of the rows that are held out.

        Raises:
            DataError: the data are missing, damaged or of another kind; the message says what was looked for and how to
                get it.
            ConfigError: an option that would have no effect, such as `test_fraction` for data with a test split.
        """

    def for_task(self, task: TaskName | None) -> Self:
        """The data set as a run with a task loads it; this one, unless the class says otherwise.

        The task can change which rows are held out for testing. Of each class a row stays for training; whole numbers
        as targets of a regression are no classes, and the rows are drawn from all.

        Args:
            task: `task` of the configuration; None: the data's own.

        Returns:
            The data set whose `load` is called.
        """
        return self

    def check(self, root: Path | None) -> None:
        """Check that the data are there, as far as that is told without reading them; called before anything starts.

        Raises:
            DataError, ConfigError: as `load`.
        """
        return

    def outline(self) -> FederatedData | None:
        """Data of the published size and shape without content, from which a run's cost is estimated.

        Every class has the same number of rows. None: size and shape are not known before the data are loaded.
        """
        return None
