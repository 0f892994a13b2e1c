"""A data set's splits, read from the columns of tables: inputs, labels, owners, and what was found of them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedbench.data.base import InputKind, Inputs, IntArray
from fedbench.data.column_labels import LabelRule, label_rule, read_labels
from fedbench.data.column_table import ColumnTable, row_name
from fedbench.data.columns import NUMBERS, ChosenColumns, content_of
from fedbench.data.decode import ImageKind, decode_images, of_equal_channels
from fedbench.data.dense import Shape, check_precision, dense_rows, stacked
from fedbench.data.masks import check_masks, mask_classes
from fedbench.data.sequences import TOKENIZERS, next_token_rows, require_sequences, token_texts, vocabulary_of
from fedbench.data.text import PADDING, UNKNOWN, encode, require_tokens
from fedbench.data.tokenizer import FolderTokenizer
from fedbench.errors import DataError
from fedbench.tasks.kinds import TaskName

Tables = Mapping[str, Sequence[ColumnTable]]
"""{split: its tables in order}; "train" comes first."""

_FILE_NAME = re.compile(
    r"\S.*\.(jpe?g|png|bmp|gif|tiff?|webp|ppm|pgm|npy|npz|wav|mp3|flac|ogg|mp4|avi|pdf)", re.IGNORECASE
)

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TextOptions:
    """How texts become tokens: see the keys of the same names of `fedbench.data.column_dataset.ColumnDataset`."""

    tokens: Literal["words", "characters"]
    max_tokens: int
    min_frequency: int
    tokenizer: FolderTokenizer | None = None


@dataclass
class ColumnRows:
    """The splits of a data set, as they were read.

    Attributes:
        arrays: "SPLIT_inputs", "SPLIT_labels", and "SPLIT_owners" where the data have natural clients.
        kind, task: as in `FederatedData`.
        class_names: as in `FederatedData`.
        numbers: the numbers that stand for the classes in the label column; None: texts or truth values do.
        vocabulary_size, padding_index: as in `FederatedData`.
        axis: of arrays [N, ...], by whose entries they are normalised: 1 (the columns) of a series, else the last.
        origins: for each split whose texts were cut into sequences, the text that each of them comes from.
    """

    arrays: Arrays
    kind: InputKind = "array"
    task: TaskName = "classification"
    class_names: tuple[str, ...] = ()
    numbers: tuple[float, ...] | None = None
    vocabulary_size: int = 0
    padding_index: int = -1
    axis: int = -1
    origins: dict[str, IntArray] = field(default_factory=dict)


def read_rows(tables: Tables, columns: ChosenColumns, images: ImageKind, texts: TextOptions) -> ColumnRows:
    """Read and check every row of every split.

    Raises:
        DataError: names the file and the row that is wrong.
    """
    tables = {split: with_rows(parts, split) for split, parts in tables.items()}
    for parts in tables.values():
        _check_alike(tables["train"][0], parts, columns)
    rows = ColumnRows({})
    if columns.content == "image":
        _read_images(rows, tables, columns.inputs[0], images)
    elif columns.content == "text":
        _read_texts(rows, tables, columns.inputs[0], texts, sequences=not columns.labels)
    else:
        _read_arrays(rows, tables, columns)
    if columns.owner is not None:
        _read_owners(rows, tables, columns.owner)
    if columns.labels:
        # What a label column lacks is told before what its values are not: a fault of one row explains the other.
        for table in itertools.chain(*tables.values()):
            table.refuse_missing(columns.labels)
        _read_labels(rows, tables, label_rule(tables["train"], columns))
    return rows


def with_rows(tables: Sequence[ColumnTable], split: str) -> list[ColumnTable]:
    """The tables of a split that have rows; the others have no values that tell types.

    Raises:
        DataError: no table of the split has rows.
    """
    filled = [table for table in tables if table.rows]
    if not filled:
        raise DataError(f"{tables[0].place}: no rows in the {split} split, expected at least one; get the file again")
    return filled


def _check_alike(first: ColumnTable, tables: Sequence[ColumnTable], columns: ChosenColumns) -> None:
    """Check that every table has the columns that are read, with content of the kind that the first one has."""
    names = (*columns.inputs, *columns.labels, *((columns.owner,) if columns.owner else ()))
    for table in tables:
        for name in names:
            table.column((name,), "needed", "as in the other files")
            content, expected = content_of(table, name), content_of(first, name)
            # Whole numbers can stand where floating-point ones are expected; as labels not the other way round.
            numbers = {content, expected} <= {*NUMBERS} or {content, expected} <= {"integers", "floats"}
            alike = numbers and (name in columns.inputs or expected in ("float", "floats"))
            if content != expected and not alike:
                raise DataError(
                    f"{table.place}: column {name!r} is {table.kind(name)} ({content}), in {first.place}"
                    f" {first.kind(name)} ({expected}); write all files with the same types"
                )


def _read_images(rows: ColumnRows, tables: Tables, column: str, kind: ImageKind) -> None:
    decoded: dict[str, npt.NDArray[np.uint8]] = {}
    for split, parts in tables.items():
        encoded = (pair for table in parts for pair in table.images(column))
        decoded[split] = decode_images(encoded, sum(table.rows for table in parts), kind)
        if decoded[split].shape[1:3] != (size := decoded["train"].shape[1:3]):
            given = f"{decoded[split].shape[1]}x{decoded[split].shape[2]}"
            raise DataError(
                f"{parts[0].place}: images of {given} pixels, those of the train split have {size[0]}x{size[1]}; resize"
                " them"
            )
    alike = of_equal_channels(list(decoded.values())) if kind.channels is None else list(decoded.values())
    rows.kind = "image"
    for split, images in zip(decoded, alike, strict=True):
        rows.arrays[f"{split}_inputs"] = images


def _read_texts(rows: ColumnRows, tables: Tables, column: str, options: TextOptions, *, sequences: bool) -> None:
    """Texts as token ids; as `sequences` cut into pieces, with the tokens that follow as labels."""
    _refuse_file_names(tables["train"], column)
    if options.tokenizer is not None:
        _read_texts_by(options.tokenizer, rows, tables, column, options.max_tokens, sequences=sequences)
        return
    cut = TOKENIZERS[options.tokens]
    tokenized = {
        split: [cut(text) for table in parts for text in table.texts(column)] for split, parts in tables.items()
    }
    vocabulary = vocabulary_of(tokenized["train"], options.tokens, options.min_frequency)
    require_tokens(vocabulary, options.min_frequency)
    rows.kind, rows.padding_index = "text", PADDING
    rows.vocabulary_size = len(vocabulary) + UNKNOWN + 1
    for split, texts in tokenized.items():
        if not sequences:
            rows.arrays[f"{split}_inputs"] = encode(texts, vocabulary, options.max_tokens)
            continue
        inputs, labels, origins = next_token_rows(texts, vocabulary, options.max_tokens)
        require_sequences(len(inputs), tables[split][0].place, split)
        rows.arrays |= {f"{split}_inputs": inputs, f"{split}_labels": labels}
        rows.origins[split] = origins
    if sequences:
        rows.task, rows.class_names = "next_token", token_texts(vocabulary)


def _refuse_file_names(tables: Sequence[ColumnTable], column: str) -> None:
    """Refuse texts all of which are the names of files: the words of a name are not what is in the file.

    Raises:
        DataError: names the first of them.
    """
    texts = (text for table in tables for text in table.texts(column))
    first = next(texts)
    if all(_FILE_NAME.fullmatch(text) for text in itertools.chain([first], texts)):
        raise DataError(
            f"{tables[0].where(0)}: column {column!r} has names of files ({first}) in place of their content; write the"
            " content into the column of a Parquet file, or place images in folders by class (data.dataset=images)"
        )


def _read_texts_by(
    tokenizer: FolderTokenizer, rows: ColumnRows, tables: Tables, column: str, length: int, *, sequences: bool
) -> None:
    """The same with the tokens of a model's tokenizer."""
    rows.kind, rows.padding_index, rows.vocabulary_size = "text", tokenizer.padding_index, tokenizer.vocabulary_size
    for split, parts in tables.items():
        texts = [text for table in parts for text in table.texts(column)]
        if not sequences:
            rows.arrays[f"{split}_inputs"] = tokenizer.encode(texts, length)
            continue
        same = {token: token for token in range(tokenizer.vocabulary_size)}
        inputs, labels, origins = next_token_rows(tokenizer.cut(texts), same, length, tokenizer.padding_index)
        require_sequences(len(inputs), parts[0].place, split)
        rows.arrays |= {f"{split}_inputs": inputs, f"{split}_labels": labels}
        rows.origins[split] = origins
    if sequences:
        rows.task, rows.class_names = "next_token", tokenizer.tokens()


def _read_arrays(rows: ColumnRows, tables: Tables, columns: ChosenColumns) -> None:
    expected: list[tuple[Shape, str] | None] = [None] * len(columns.inputs)
    for split, parts in tables.items():
        arrays: list[Inputs] = []
        for table in parts:
            if columns.stacked:
                values, shapes = stacked(table, columns.inputs, expected)
                expected = list(shapes)
            else:
                dense, shape = dense_rows(table, columns.inputs[0], expected[0])
                values = dense.astype(np.float32)
                expected = [expected[0] or (shape, f"as in {table.where(0)}")]
            arrays.append(values)
        inputs = rows.arrays[f"{split}_inputs"] = np.concatenate(arrays)
        for place, column in enumerate(columns.inputs) if split == "train" else ():
            check_precision(parts, column, inputs[:, place] if columns.stacked else inputs)
    rows.axis = 1 if columns.stacked else -1


def _read_labels(rows: ColumnRows, tables: Tables, rule: LabelRule) -> None:
    rows.task, rows.class_names, rows.numbers = rule.task, rule.names, rule.numbers
    for split, parts in tables.items():
        labels = read_labels(parts, rule, split)
        rows.arrays[f"{split}_labels"] = labels
        if rule.task == "segmentation":
            masks = labels.astype(np.uint8, copy=False)
            if split == "train":
                rows.class_names = mask_classes(masks, parts[0].place)
            size = rows.arrays[f"{split}_inputs"].shape[1:3]
            check_masks(masks, len(rows.class_names), size, partial(row_name, parts))


def _read_owners(rows: ColumnRows, tables: Tables, column: str) -> None:
    """The natural client of each row, numbered in the order of their names over all splits."""
    names = {split: np.concatenate([table.values(column) for table in parts]) for split, parts in tables.items()}
    codes = np.unique(np.concatenate(list(names.values())), return_inverse=True)[1].astype(np.int64)
    borders = np.cumsum([len(owners) for owners in names.values()])[:-1]
    for split, owners in zip(names, np.split(codes, borders), strict=True):
        rows.arrays[f"{split}_owners"] = owners[rows.origins[split]] if split in rows.origins else owners
