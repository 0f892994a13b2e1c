"""One Parquet file, column by column, with a check of every value."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.data.base import IntArray
from fedbench.errors import DataError

BATCH_ROWS = 1024


class ParquetTable:
    """One Parquet file; whatever is wrong with it is a `DataError` that names its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._readable():
            # Checksums of pages are compared where the file has any, as those that fedbench writes do.
            self.file = pq.ParquetFile(path, page_checksum_verification=True)
            self.rows: int = self.file.metadata.num_rows
            self.schema: pa.Schema = self.file.schema_arrow
            self.columns: list[str] = self.schema.names

    def column(self, candidates: Sequence[str], meaning: str, content: str) -> str:
        """The first of some names that the file has as a column.

        Args:
            meaning: what the column holds, for an error message ("image").
            content: what its values must be, to stand behind "a column NAME" in an error message.

        Raises:
            DataError: it has none of them, or the name twice.
        """
        for name in candidates:
            if self.columns.count(name) > 1:
                raise DataError(f"{self.path}: {self.columns.count(name)} columns are named {name!r}; keep one of them")
            if name in self.columns:
                return name
        wanted = " or ".join(repr(name) for name in candidates)
        raise DataError(
            f"{self.path}: no {meaning} column: expected {wanted}, found {', '.join(self.columns) or 'none'};"
            f" write the file with a column {candidates[0]!r} {content}"
        )

    def images(self, column: str) -> Iterator[tuple[str, bytes | None]]:
        """For each row its name in error messages, and the bytes of its image file."""
        kind = self.kind(column)
        is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not _is_binary(kind.field("bytes").type if is_struct else kind):
            raise DataError(f"{self.path}: column {column!r} is {kind}, expected struct<bytes: binary, path: string>")
        name = str(self.path)
        for first, array in self._arrays(column):
            values = pa.compute.struct_field(array, "bytes") if is_struct else array
            for offset, value in enumerate(values.to_pylist()):
                yield f"{name}, row {first + offset}", value

    def texts(self, column: str) -> Iterator[str]:
        """The texts of a column, row by row."""
        if not is_text(self.kind(column)):
            raise DataError(f"{self.path}: column {column!r} is {self.kind(column)}, expected string")
        for first, array in self._arrays(column):
            self._refuse_nulls(array, column, first)
            # As bytes: Arrow does not check that what calls itself a string is UTF-8.
            for offset, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
                try:
                    yield value.decode()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}, row {first + offset}: column {column!r} is not UTF-8"
                        f" (byte {error.start}: 0x{value[error.start]:02x}); write the text as UTF-8, or drop the row"
                    ) from None

    def integers(self, column: str) -> IntArray:
        """A column of whole numbers, int64 [N]."""
        kind = self.kind(column)
        if not pa.types.is_integer(kind):
            raise DataError(
                f"{self.path}: column {column!r} is {kind}, expected an integer (the index of the class), or a string"
                " (its name)"
            )
        parts = [np.empty(0, np.int64)]
        for first, array in self._arrays(column):
            self._refuse_nulls(array, column, first)
            parts.append(array.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(parts)

    def values(self, column: str) -> npt.NDArray[np.str_]:
        """A column of text or numbers, as text."""
        self.column([column], "owner", "with the client of each row")
        if is_text(self.kind(column)):
            return np.array(list(self.texts(column)), dtype=np.str_)
        parts: list[str] = []
        for first, array in self._arrays(column):
            self._refuse_nulls(array, column, first)
            parts.extend(str(value) for value in array.to_pylist())
        return np.array(parts, dtype=np.str_)

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """The names of a column's classes in the Hugging Face metadata; None where they are not there."""
        raw = (self.schema.metadata or {}).get(b"huggingface")
        try:
            names = json.loads(raw)["info"]["features"][column]["names"] if raw else None
        except (ValueError, KeyError, TypeError):
            return None
        return tuple(str(name) for name in names) if isinstance(names, list) else None

    def kind(self, column: str) -> pa.DataType:
        """The type of a column's values; of a column of categories (a dictionary in Arrow) that of the categories."""
        kind = self.schema.field(column).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """The values of a column, a batch at a time, each with the number of its first row."""
        first = 0
        with self._readable():
            for batch in self.file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                array = batch.column(0)
                yield first, array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array
                first += batch.num_rows

    def _refuse_nulls(self, array: pa.Array, column: str, first: int) -> None:
        if array.null_count:
            row = first + int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{self.path}, row {row}: column {column!r} is empty (null); fill it or drop the row")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: not a readable Parquet file ({reason}); get the file again") from error


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's values are strings, in whichever of Arrow's forms."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
