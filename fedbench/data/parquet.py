"""Reading and checking the splits of a data set as Parquet in the Hugging Face layout.

Images are a struct<bytes, path> column (or plain binary), texts a column of strings; labels are integers, or the names
of the classes as text; class names in label order are in the schema metadata under the key `huggingface`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedbench.data.base import IntArray
from fedbench.data.column_table import is_text
from fedbench.data.decode import ImageKind, decode_images
from fedbench.data.parquet_table import ParquetTable
from fedbench.errors import DataError

IMAGE_COLUMNS = ("image", "img")
TEXT_COLUMNS = ("text",)


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


def read_images(
    files: Sequence[Path],
    kind: ImageKind,
    *,
    label_columns: Sequence[str],
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    owner_column: str | None = None,
) -> ImageRows:
    """Read, decode and check one split of images, file after file, a batch of rows at a time.

    Args:
        files: the split's files, in order.
        kind: the format that every image must have.
        label_columns: names that the column of the labels may have; the first that is there is taken.
        classes: number of classes; None: as many as the metadata name, or else the largest label + 1.
        class_names: the names of the classes in label order, by which labels that are texts are known where the
            metadata do not name them; None: the texts that occur, in alphabetical order.
        owner_column: the column with each row's natural client.

    Raises:
        DataError: an unreadable file, a missing column, an image that is damaged or of another format, a label out of
            range or unknown, or no rows.
    """
    tables = [ParquetTable(file) for file in files]
    image_columns = [table.column(IMAGE_COLUMNS, "image", "with the bytes of an image file each") for table in tables]
    labels, names = _labels(tables, label_columns, classes, class_names)
    owners = [table.values(owner_column) for table in tables] if owner_column else None

    def encoded() -> Iterator[tuple[str, bytes | None]]:
        for table, column in zip(tables, image_columns, strict=True):
            yield from table.images(column)

    images = decode_images(encoded(), len(labels), kind)
    return ImageRows(images, labels, None if owners is None else np.concatenate(owners), names)


def read_texts(
    files: Sequence[Path],
    *,
    label_columns: Sequence[str],
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> TextRows:
    """Read and check one split of labelled texts (column `text`).

    Args:
        files, label_columns, classes, class_names: as for `read_images`.

    Raises:
        DataError: an unreadable file, a missing column, a row without text or with one that is not UTF-8, a label out
            of range or unknown, or no rows.
    """
    tables = [ParquetTable(file) for file in files]
    text_columns = [table.column(TEXT_COLUMNS, "text", "of strings") for table in tables]
    labels, names = _labels(tables, label_columns, classes, class_names)
    texts: list[str] = []
    for table, column in zip(tables, text_columns, strict=True):
        texts.extend(table.texts(column))
    return TextRows(texts, labels, names)


def _labels(
    tables: Sequence[ParquetTable], candidates: Sequence[str], classes: int | None, known: Sequence[str] | None
) -> tuple[IntArray, tuple[str, ...] | None]:
    """The labels of a split and the names of its classes, both checked against the number of classes."""
    columns = [table.column(candidates, "label", "of whole numbers from 0") for table in tables]
    names = tables[0].class_names(columns[0])
    for table, column in zip(tables, columns, strict=True):
        if table.class_names(column) != names:
            raise DataError(f"{table.path}: other class names than in {tables[0].path.name}; these are two data sets")
    if names is not None and classes is not None and len(names) != classes:
        raise DataError(
            f"{tables[0].path}: {len(names)} class names in the metadata of {columns[0]!r}, expected {classes};"
            " this is another data set"
        )
    texts = [
        list(table.texts(column)) if is_text(table.kind(column)) else None
        for table, column in zip(tables, columns, strict=True)
    ]
    if any(values is not None for values in texts) and names is None:
        names = (
            tuple(known) if known is not None else tuple(sorted({text for values in texts for text in values or ()}))
        )
    bound = classes if classes is not None else (len(names) if names is not None else None)
    parts = []
    for table, column, values in zip(tables, columns, texts, strict=True):
        where = f"{table.path}, row {{row}}: column {column!r}"
        labels = table.integers(column) if values is None else _indices(values, names or (), where)
        check_labels(labels, bound, where)
        parts.append(labels)
    together = np.concatenate(parts)
    if len(together) == 0:
        raise DataError(f"{tables[0].path}: no rows in this split, expected at least one; get the file again")
    return together, names


def _indices(texts: Sequence[str], names: Sequence[str], where: str) -> IntArray:
    """The index in `names` of each text.

    Raises:
        DataError: names the first row whose text is not there.
    """
    index = {name: label for label, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text not in index:
            raise DataError(
                f"{where.format(row=row)}: label {text!r}, expected one of the {len(names)} class names"
                f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}); correct it or drop the row"
            )
    return np.array([index[text] for text in texts], dtype=np.int64)


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
