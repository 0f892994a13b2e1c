"""A table whose columns are read with a check of every value, wherever its rows are stored."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.data.base import IntArray
from fedbench.errors import DataError

BATCH_ROWS = 1024


class ColumnTable(ABC):
    """A table; whatever is wrong with one of its rows is a `DataError` that names the file and the row.

    Attributes:
        place: the file, or the data set and its split, for error messages.
        schema: names and types of the columns; its metadata may hold `features` in the Hugging Face layout.
        rows: number of rows.
    """

    place: str
    schema: pa.Schema
    rows: int

    @abstractmethod
    def arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """The values of a column, a batch at a time, each with the number of its first row."""

    def where(self, row: int) -> str:
        """A row, counted from 0, as an error message names it."""
        return f"{self.place}, row {row}"

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    def column(self, candidates: Sequence[str], meaning: str, content: str) -> str:
        """The first of some names that the table has as a column.

        Args:
            candidates: the names, the preferred one first.
            meaning: what the column holds, for an error message ("image").
            content: what its values must be, to stand behind "a column NAME" in an error message.

        Raises:
            DataError: it has none of them, or the name twice.
        """
        for name in candidates:
            if self.columns.count(name) > 1:
                raise DataError(
                    f"{self.place}: {self.columns.count(name)} columns are named {name!r}; keep one of them"
                )
            if name in self.columns:
                return name
        wanted = " or ".join(repr(name) for name in candidates)
        raise DataError(
            f"{self.place}: no {meaning} column: expected {wanted}, found {', '.join(self.columns) or 'none'};"
            f" write the file with a column {candidates[0]!r} {content}"
        )

    def images(self, column: str) -> Iterator[tuple[str, bytes | None]]:
        """For each row its name in error messages, and the bytes of its image file."""
        kind = self.kind(column)
        if not is_encoded(kind):
            raise DataError(f"{self.place}: column {column!r} is {kind}, expected struct<bytes: binary, path: string>")
        is_struct = pa.types.is_struct(kind)
        for first, array in self.arrays(column):
            values = pa.compute.struct_field(array, "bytes") if is_struct else array
            paths = pa.compute.struct_field(array, "path") if is_struct and kind.get_field_index("path") >= 0 else None
            for offset, value in enumerate(values.to_pylist()):
                path = None if value is not None or paths is None else paths[offset].as_py()
                yield self.where(first + offset), self.referenced(path) if value is None else value

    def referenced(self, path: str | None) -> bytes | None:
        """The bytes of an image that the table names by a path instead of holding it; None where it has to hold it."""
        return None

    def texts(self, column: str) -> Iterator[str]:
        """The texts of a column, row by row."""
        if not is_text(self.kind(column)):
            raise DataError(f"{self.place}: column {column!r} is {self.kind(column)}, expected string")
        for first, array in self.arrays(column):
            self._refuse_nulls(array, column, first)
            # As bytes: Arrow does not check that what calls itself a string is UTF-8.
            for offset, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
                try:
                    yield value.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.where(first + offset)}: column {column!r} is not UTF-8"
                        f" (byte {error.start}: 0x{value[error.start]:02x}); write the text as UTF-8, or drop the row"
                    ) from None

    def integers(self, column: str) -> IntArray:
        """A column of whole numbers, int64 [N]."""
        kind = self.kind(column)
        if not pa.types.is_integer(kind):
            raise DataError(
                f"{self.place}: column {column!r} is {kind}, expected an integer (the index of the class), or a string"
                " (its name)"
            )
        parts = [np.empty(0, np.int64)]
        for first, array in self.arrays(column):
            self._refuse_nulls(array, column, first)
            parts.append(array.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(parts)

    def whole_numbers(self, column: str) -> list[int]:
        """A column of whole numbers as they are, of whichever size."""
        numbers: list[int] = []
        for first, array in self.arrays(column):
            self._refuse_nulls(array, column, first)
            numbers.extend(array.to_pylist())
        return numbers

    def values(self, column: str) -> npt.NDArray[np.str_]:
        """A column of text or numbers, as text."""
        self.column([column], "owner", "with the client of each row")
        if is_text(self.kind(column)):
            return np.array(list(self.texts(column)), dtype=np.str_)
        parts: list[str] = []
        for first, array in self.arrays(column):
            self._refuse_nulls(array, column, first)
            parts.extend(str(value) for value in array.to_pylist())
        return np.array(parts, dtype=np.str_)

    @cached_property
    def features(self) -> Mapping[str, Any]:
        """{column: its type in the Hugging Face metadata}; empty without such metadata."""
        raw = (self.schema.metadata or {}).get(b"huggingface")
        try:
            features = json.loads(raw)["info"]["features"] if raw else {}
        except (ValueError, KeyError, TypeError):
            return {}
        return features if isinstance(features, dict) else {}

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """The names of a column's classes in the Hugging Face metadata; None where they are not there."""
        feature = self.features.get(column)
        names = feature.get("names") if isinstance(feature, dict) else None
        return tuple(str(name) for name in names) if isinstance(names, list) else None

    def kind(self, column: str) -> pa.DataType:
        """The type of a column's values; of a column of categories (a dictionary in Arrow) that of the categories.

        Raises:
            DataError: the table has several columns of this name.
        """
        if (count := self.columns.count(column)) > 1:
            raise DataError(
                f"{self.place}: {count} columns are named {column!r}; keep one of them, or rename the others"
            )
        kind = self.schema.field(column).type
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def refuse_missing(self, columns: Sequence[str]) -> None:
        """Refuse a row without a value in one of some columns; of encoded files nothing is read.

        Raises:
            DataError: names the row and the column.
        """
        for column in columns:
            if not is_encoded(self.kind(column)):
                for first, array in self.arrays(column):
                    self._refuse_nulls(array, column, first)

    def _refuse_nulls(self, array: pa.Array, column: str, first: int) -> None:
        if array.null_count:
            row = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{self.where(row)}: column {column!r} is empty (null); fill it or drop the row")


def row_name(tables: Sequence[ColumnTable], row: int) -> str:
    """A row of a split, counted over all its tables, as an error message names it."""
    for table in tables:
        if row < table.rows:
            return table.where(row)
        row -= table.rows
    raise IndexError(row)


def plain(array: pa.Array) -> pa.Array:
    """The values of categories (a dictionary in Arrow), or the storage of a library's own type, as a plain array."""
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's values are strings, in whichever of Arrow's forms."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a column's values are encoded files: binary, or a struct with a binary field `bytes`."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
