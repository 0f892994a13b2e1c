"""Base class of data sets by configuration alone: tables whose columns are named, or found by names and types."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, model_validator

from fedbench.data.base import Dataset, FederatedData, IntArray, Split
from fedbench.data.cache import Entry, cached
from fedbench.data.column_rows import ColumnRows, Tables, TextOptions, read_rows, with_rows
from fedbench.data.columns import ChosenColumns, Content, choose_columns
from fedbench.data.decode import DECODER_VERSION, ImageKind
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out, refuse_test_fraction, require_rows
from fedbench.data.image_dataset import derived_fingerprint
from fedbench.data.moments import moments
from fedbench.data.overlap import count_shared
from fedbench.data.text import TOKENIZER_VERSION
from fedbench.data.tokenizer import FolderTokenizer
from fedbench.errors import ConfigError, DataError
from fedbench.tasks.kinds import TaskName

READER_VERSION = 3
"""Part of the cache key: raise it when the same tables would give other arrays."""

SPLITS = ("train", "test", "validation")


@dataclass(frozen=True)
class TableSource:
    """Tables that are not read yet.

    Attributes:
        description: where they are, in words, without absolute paths.
        files: all files that are read, in a fixed order.
        layout: which file belongs to which split, and what else the result depends on; plain JSON values.
        tables: called to open the tables of each split.
        remarks: as in `FederatedData`.
    """

    description: str
    files: tuple[Path, ...]
    layout: Mapping[str, Any]
    tables: Callable[[], Tables]
    remarks: tuple[str, ...] = ()


class ColumnDataset(Dataset):
    """Rows of tables: images, texts or numbers, with labels of any task, and the natural client of each row.

    Attributes:
        inputs: Column of a row's inputs: images, strings, numbers, or lists of numbers of one shape. A list of columns
            of numbers is a row of a table, one of columns of lists of length T is a series [columns, T]. null: found by
            name (image, img, text, ...), or all other columns where they hold one number each.
        label: Column of the labels; its type says the task. Whole numbers, strings, truth values: classification; a
            list of 0 and 1, or of class names: multilabel; floating-point numbers: regression; an image, or a list of
            lists of whole numbers: segmentation. A list of columns: several targets or labels. null: found by name
            (label, fine_label, target, ...). []: none; each next token of a text is predicted.
        owner: Column with the natural client of each row, for data.partition.name=natural. null: found by name
            (client, user, writer, and these with _id), if it is there.
        tokens: Whether texts are cut into lower-cased words or into characters as they are.
        max_tokens: Tokens of a text; longer texts are cut off, shorter ones padded. Without labels: tokens of a
            sequence; a text gives as many sequences as it fills.
        min_frequency: Number of times that a token must occur in the training split to be in the vocabulary.
        tokenizer: hf:PATH of a model folder whose tokenizer makes the tokens, in place of words and characters.
        channels: Of images: 1 for grey ones, 3 for colour. auto: 1 where all images are grey, or else 3.
    """

    inputs: str | tuple[str, ...] | None = None
    label: str | tuple[str, ...] | None = None
    owner: str | None = None
    tokens: Literal["words", "characters"] = "words"
    max_tokens: int = Field(default=64, ge=1, le=4096)
    min_frequency: int = Field(default=1, ge=1)
    tokenizer: str | None = None
    channels: Literal["auto", 1, 3] = "auto"

    _task: TaskName | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        if self.inputs == ():
            raise ValueError("inputs=[]: names no column; leave it out to have them found")
        for key in ("tokens", "min_frequency"):
            value = getattr(self, key)
            if self.tokenizer is not None and value != ColumnDataset.model_fields[key].default:
                raise ValueError(f"{key}={value}: has no effect with a tokenizer; leave it out")
        return self

    @abstractmethod
    def locate(self, root: Path | None, *, test_fraction: float | None) -> TableSource:
        """Find the tables.

        Args:
            root: `data.root`.
            test_fraction: `data.test_fraction`, which is refused where there is a test split.

        Raises:
            ConfigError: an option that has no effect, or one that is needed.
            DataError: there are no tables; the message says what was looked for.
        """

    def choose(self, tables: Tables) -> ChosenColumns:
        """The columns that are read.

        Raises:
            DataError: as `choose_columns`.
            ConfigError: an option that has no effect on such columns.
        """
        columns = choose_columns(with_rows(tables["train"], "train")[0], self.inputs, self.label, self.owner)
        only: dict[str, Content] = {
            "tokens": "text",
            "max_tokens": "text",
            "min_frequency": "text",
            "tokenizer": "text",
            "channels": "image",
        }
        for key, content in only.items():
            value = getattr(self, key)
            if value != ColumnDataset.model_fields[key].default and columns.content != content:
                raise ConfigError(
                    f"data.dataset.{key}={value}: has no effect, the inputs {', '.join(columns.inputs)} are no"
                    f" {content}s; leave it out"
                )
        return columns

    def arranged(self, rows: ColumnRows) -> ColumnRows:
        """The rows as they are kept, where a data set keeps them otherwise than they stand in its columns."""
        return rows

    def for_task(self, task: TaskName | None) -> Self:
        """See `Dataset.for_task`."""
        dataset = self.model_copy()
        dataset._task = task
        return dataset

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        source = self.locate(root, test_fraction=test_fraction)
        tokenizer = None if self.tokenizer is None else FolderTokenizer(self.tokenizer, "data.dataset.tokenizer")
        parameters = {
            "reader": READER_VERSION,
            "decoder": DECODER_VERSION,
            "tokenizer": TOKENIZER_VERSION,
            "layout": dict(source.layout),
            "columns": self.model_dump(mode="json", exclude={"name", "folder", "tokenizer"}),
            **({} if tokenizer is None else {"folder_tokenizer": tokenizer.digest}),
        }

        def build() -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
            tables = source.tables()
            columns = self.choose(tables)
            images = ImageKind(None if self.channels == "auto" else self.channels, grey_as_rgb=self.channels == 3)
            options = TextOptions(self.tokens, self.max_tokens, self.min_frequency, tokenizer)
            rows = self.arranged(read_rows(tables, columns, images, options))
            return rows.arrays, facts_of(rows) | {"columns": columns.description}

        entry = cached(self.name.partition(":")[0], source.files, parameters, build)
        described = f"{source.description} ({entry.facts['columns']})"
        data = assembled(
            self.name,
            entry,
            described,
            test_fraction=test_fraction,
            seed=seed,
            task=self._task,
            remarks=source.remarks,
        )
        return data if tokenizer is None else replace(data, tokenizer=tokenizer.digest)


def split_roles(splits: Mapping[str, Sequence[Any]], place: str, test_fraction: float | None) -> tuple[list[str], str]:
    """The splits that are read as the training split, the test split, and the validation split.

    Without a test split the validation split serves as one, unless rows are to be held out of the training split.

    Args:
        splits: the splits that are there, by name.
        place: where they are, for messages.
        test_fraction: `data.test_fraction`.

    Returns:
        For each of train, test and validation the name of the split that serves as it, "" for none; and a note for the
        data's description.

    Raises:
        DataError: there is no training split.
        ConfigError: `test_fraction` for data with a test split.
    """
    if "train" not in splits:
        there = ", ".join(sorted(splits))
        raise DataError(f"{place}: no train split, found only {there}; name its file train-00000-of-00001, or train")
    if "test" in splits:
        refuse_test_fraction(place, test_fraction)
        return ["train", "test", "validation" if "validation" in splits else ""], ""
    if "validation" in splits and test_fraction is None:
        return ["train", "validation", ""], ", validation as the test split"
    return ["train", "", "validation" if "validation" in splits else ""], ""


def facts_of(rows: ColumnRows) -> dict[str, Any]:
    """What is stored beside the arrays of a data set, as plain JSON values."""
    arrays = rows.arrays
    shared = 0
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    if "test_inputs" in arrays:
        shared = count_shared(arrays["train_inputs"], arrays["test_inputs"])
        scaling = moments(arrays["train_inputs"], rows.axis) if rows.kind == "array" else None
    facts = {
        "kind": rows.kind,
        "task": rows.task,
        "class_names": rows.class_names,
        "numbers": rows.numbers,
        "vocabulary_size": rows.vocabulary_size,
        "padding_index": rows.padding_index,
        "axis": rows.axis,
    }
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return facts | {"content": digest.hexdigest(), "test_rows_in_train": shared, "scaling": scaling}


def assembled(
    name: str,
    entry: Entry,
    source: str,
    *,
    test_fraction: float | None,
    seed: int,
    task: TaskName | None = None,
    remarks: tuple[str, ...] = (),
) -> FederatedData:
    """The data of a cache entry; where it has no test split, one is held out.

    Rows are held out in the same share of every natural client, or else of every class, or else at random.

    Args:
        name: of the data set, as configured.
        entry: arrays as `read_rows` gives them, and facts as `facts_of`.
        source: for the data's description.
        task: what the labels will be used for, where that is another task than theirs.
        remarks: as in `FederatedData`.
    """
    facts = entry.facts
    train, test = _split(entry, "train"), _split(entry, "test")
    assert train is not None
    digest, scaling = facts["content"], facts["scaling"]
    held_out = test is None
    if test is None:
        require_rows(len(train), name)
        groups, of_what = _groups(train, task or facts["task"])
        kept, held = hold_out(groups, test_fraction, seed)
        train, test = _select(train, kept), _select(train, held)
        fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        source += f", {fraction:g} of {of_what} held out as the test split"
        digest = derived_fingerprint(digest, [fraction, seed])
        scaling = moments(train.inputs, facts["axis"]) if facts["kind"] == "array" else None
    mean, std = (tuple(values) for values in scaling) if scaling else (None, None)
    return FederatedData(
        name=name,
        kind=facts["kind"],
        task=facts["task"],
        train=train,
        test=test,
        validation=_split(entry, "validation"),
        class_names=tuple(facts["class_names"]),
        mean=mean,
        std=std,
        vocabulary_size=facts["vocabulary_size"],
        padding_index=facts["padding_index"],
        source=source,
        fingerprint=digest,
        test_split_by_seed=held_out,
        test_rows_in_train=facts["test_rows_in_train"],
        class_values=None if facts["numbers"] is None else tuple(facts["numbers"]),
        scaling_axis=facts["axis"] if facts["kind"] == "array" else None,
        remarks=remarks,
    )


def _groups(train: Split, task: str) -> tuple[IntArray, str]:
    """The groups that each give the same share of their rows to the test split, and their name."""
    if train.owners is not None:
        return train.owners, "each owner's rows"
    if task == "classification":
        return train.labels.astype(np.int64, copy=False), "each class"
    return np.zeros(len(train), np.int64), "the rows"


def _split(entry: Entry, split: str) -> Split | None:
    arrays = entry.arrays
    if f"{split}_inputs" not in arrays:
        return None
    return Split(arrays[f"{split}_inputs"], arrays[f"{split}_labels"], arrays.get(f"{split}_owners"))


def _select(rows: Split, index: IntArray) -> Split:
    owners = None if rows.owners is None else rows.owners[index]
    return replace(rows, inputs=rows.inputs[index], labels=rows.labels[index], owners=owners)
