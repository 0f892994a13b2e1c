"""Data sets as Parquet in the Hugging Face layout: finding their files, reading and checking them.

The layout: one or more files `SPLIT-00000-of-00001.parquet` (or `SPLIT.parquet`) per split, in the data set's
folder, its `data/` or its only subfolder that has any. Images are a struct<bytes, path> column (or plain binary),
labels integers, class names in the schema metadata under the key `huggingface`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.data.base import IntArray
from fedbench.data.decode import ImageKind, decode_images
from fedbench.errors import DataError

IMAGE_COLUMNS = ("image", "img")
TEXT_COLUMNS = ("text",)
BATCH_ROWS = 1024

_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
_FILE_NAME = re.compile(r"(?P<split>[a-z]+)(?:-(?P<shard>\d+)-of-(?P<shards>\d+)(?:-[0-9a-f]+)?|-[^/]*)?\.parquet")

SplitFiles = dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class ImageRows:
    """A split of images, as it was read.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        owners: [N], the natural client of each row as text; None: the data have no natural clients.
        class_names: the names of the classes in label order; None: the files do not name them.
    """

    images: npt.NDArray[np.uint8]
    labels: IntArray
    owners: npt.NDArray[np.str_] | None
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class TextRows:
    """A split of texts, as it was read.

    Attributes:
        texts: N texts.
        labels: int64 [N].
        class_names: the names of the classes in label order; None: the files do not name them.
    """

    texts: list[str]
    labels: IntArray
    class_names: tuple[str, ...] | None


def find_splits(folder: Path) -> SplitFiles:
    """The Parquet files of a data set by split (train | test | validation); empty where there are none.

    Raises:
        DataError: a numbered file of a split is missing, or several subfolders have data.
    """
    splits = _splits_in(folder) or _splits_in(folder / "data")
    if splits or not folder.is_dir():
        return splits
    inside = {sub: splits for sub in sorted(folder.iterdir()) if (splits := _splits_in(sub))}
    if len(inside) > 1:
        names = ", ".join(sub.name for sub in inside)
        raise DataError(f"{folder}: Parquet files in several subfolders ({names}), expected one; move the others away")
    return next(iter(inside.values()), {})


def _splits_in(folder: Path) -> SplitFiles:
    splits: dict[str, list[Path]] = {}
    shards: dict[str, set[int]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or match["split"] not in _SPLITS:
            continue
        split = _SPLITS[match["split"]]
        splits.setdefault(split, []).append(path)
        if match["shards"] is not None:
            shards.setdefault(split, set()).add(int(match["shards"]))
    for split, totals in shards.items():
        if len(totals) > 1 or len(splits[split]) != max(totals):
            raise DataError(
                f"{folder}: {len(splits[split])} Parquet file(s) of the {split} split, expected {max(totals)} by their"
                " names (-of-); get the missing ones, or move the foreign ones away"
            )
    return {split: tuple(paths) for split, paths in splits.items()}


def read_images(
    files: Sequence[Path],
    kind: ImageKind,
    *,
    label_columns: Sequence[str],
    classes: int | None = None,
    owner_column: str | None = None,
) -> ImageRows:
    """Read, decode and check one split of images, file after file, a batch of rows at a time.

    Args:
        files: the split's files, in order.
        kind: the format that every image must have.
        label_columns: names that the column of the labels may have; the first that is there is taken.
        classes: number of classes; None: as many as the metadata name, or else the largest label + 1.
        owner_column: the column with each row's natural client.

    Raises:
        DataError: an unreadable file, a missing column, an image that is damaged or of another format, a label out of
            range, or no rows.
    """
    tables = [_Table(file) for file in files]
    image_columns = [table.column(IMAGE_COLUMNS, "image") for table in tables]
    labels, class_names = _labels(tables, label_columns, classes)
    owners = [table.values(owner_column) for table in tables] if owner_column else None

    def encoded() -> Iterator[tuple[str, bytes | None]]:
        for table, column in zip(tables, image_columns, strict=True):
            yield from table.images(column)

    images = decode_images(encoded(), len(labels), kind)
    return ImageRows(images, labels, None if owners is None else np.concatenate(owners), class_names)


def read_texts(files: Sequence[Path], *, label_columns: Sequence[str], classes: int | None = None) -> TextRows:
    """Read and check one split of labelled texts (column `text`).

    Args:
        files, label_columns, classes: as for `read_images`.

    Raises:
        DataError: an unreadable file, a missing column, a row without text, a label out of range, or no rows.
    """
    tables = [_Table(file) for file in files]
    text_columns = [table.column(TEXT_COLUMNS, "text") for table in tables]
    labels, class_names = _labels(tables, label_columns, classes)
    texts: list[str] = []
    for table, column in zip(tables, text_columns, strict=True):
        texts.extend(table.texts(column))
    return TextRows(texts, labels, class_names)


class _Table:
    """One Parquet file; whatever is wrong with it is a `DataError` that names its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._readable():
            self.file = pq.ParquetFile(path)
        self.rows: int = self.file.metadata.num_rows
        self.schema: pa.Schema = self.file.schema_arrow

    def column(self, candidates: Sequence[str], meaning: str) -> str:
        """The first of some names that the file has as a column.

        Raises:
            DataError: it has none of them.
        """
        for name in candidates:
            if name in self.schema.names:
                return name
        wanted = " or ".join(repr(name) for name in candidates)
        raise DataError(
            f"{self.path}: no {meaning} column: expected {wanted}, found {', '.join(self.schema.names) or 'none'};"
            " write the file in the Hugging Face layout"
        )

    def images(self, column: str) -> Iterator[tuple[str, bytes | None]]:
        """For each row its name in error messages, and the bytes of its image file."""
        kind = self.schema.field(column).type
        is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise DataError(f"{self.path}: column {column!r} is {kind}, expected struct<bytes: binary, path: string>")
        name = str(self.path)
        for first, batch in self._batches(column):
            array = batch.column(0)
            values = pa.compute.struct_field(array, "bytes") if is_struct else array
            for offset, value in enumerate(values.to_pylist()):
                yield f"{name}, row {first + offset}", value

    def texts(self, column: str) -> Iterator[str]:
        """The texts of a column, row by row."""
        kind = self.schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{self.path}: column {column!r} is {kind}, expected string")
        for first, batch in self._batches(column):
            self._refuse_nulls(batch.column(0), column, first)
            yield from batch.column(0).to_pylist()

    def integers(self, column: str) -> IntArray:
        """A column of whole numbers, int64 [N]."""
        kind = self.schema.field(column).type
        if not pa.types.is_integer(kind):
            raise DataError(f"{self.path}: column {column!r} is {kind}, expected an integer (the index of the class)")
        parts = [np.empty(0, np.int64)]
        for first, batch in self._batches(column):
            self._refuse_nulls(batch.column(0), column, first)
            parts.append(batch.column(0).to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(parts)

    def values(self, column: str) -> npt.NDArray[np.str_]:
        """A column of text or numbers, as text."""
        self.column([column], "owner")
        parts: list[str] = []
        for first, batch in self._batches(column):
            self._refuse_nulls(batch.column(0), column, first)
            parts.extend(str(value) for value in batch.column(0).to_pylist())
        return np.array(parts, dtype=np.str_)

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """The names of a column's classes in the Hugging Face metadata; None where they are not there."""
        raw = (self.schema.metadata or {}).get(b"huggingface")
        try:
            names = json.loads(raw)["info"]["features"][column]["names"] if raw else None
        except (ValueError, KeyError, TypeError):
            return None
        return tuple(str(name) for name in names) if isinstance(names, list) else None

    def _batches(self, column: str) -> Iterator[tuple[int, pa.RecordBatch]]:
        first = 0
        with self._readable():
            for batch in self.file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                yield first, batch
                first += batch.num_rows

    def _refuse_nulls(self, array: pa.Array, column: str, first: int) -> None:
        if array.null_count:
            row = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{self.path}, row {row}: column {column!r} is empty (null); fill it or drop the row")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: not a readable Parquet file ({reason}); get the file again") from error


def _labels(
    tables: Sequence[_Table], candidates: Sequence[str], classes: int | None
) -> tuple[IntArray, tuple[str, ...] | None]:
    """The labels of a split and the names of its classes, both checked against the number of classes."""
    columns = [table.column(candidates, "label") for table in tables]
    names = tables[0].class_names(columns[0])
    for table, column in zip(tables, columns, strict=True):
        if table.class_names(column) != names:
            raise DataError(f"{table.path}: other class names than in {tables[0].path.name}; these are two data sets")
    if names is not None and classes is not None and len(names) != classes:
        raise DataError(
            f"{tables[0].path}: {len(names)} class names in the metadata of {columns[0]!r}, expected {classes};"
            " this is another data set"
        )
    bound = classes if classes is not None else (len(names) if names is not None else None)
    parts = []
    for table, column in zip(tables, columns, strict=True):
        labels = table.integers(column)
        check_labels(labels, bound, f"{table.path}, row {{row}}: column {column!r}")
        parts.append(labels)
    together = np.concatenate(parts)
    if len(together) == 0:
        raise DataError(f"{tables[0].path}: no rows in this split, expected at least one; get the file again")
    return together, names


def check_labels(labels: IntArray, classes: int | None, where: str) -> None:
    """Check that every label is in 0..classes-1.

    Args:
        labels: int64 [N].
        classes: number of classes; None: any number.
        where: where the labels are, for the error message, with `{row}` for the row.

    Raises:
        DataError: names the first row with another label, the label and the range.
    """
    wrong = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    allowed = "0 or more" if classes is None else f"0..{classes - 1}"
    raise DataError(f"{where.format(row=row)}: label {labels[row]}, expected {allowed}; correct it or drop the row")
