"""One CSV file, column by column."""

import csv
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from fedbench.data.column_table import BATCH_ROWS, ColumnTable, is_text
from fedbench.errors import DataError

OTHER_KINDS = (
    (b"\xff\xfe", "UTF-16", "write it again"),
    (b"\xfe\xff", "UTF-16", "write it again"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it"),
    (b"PK\x03\x04", "a ZIP archive or a workbook", "unpack it, or save it as CSV"),
)
"""How files begin that are often named .csv without being text: (first bytes, what it is, what to do)."""


class CsvTable(ColumnTable):
    """One CSV file with the names of its columns in the first line; types are found from all of its values.

    A column in which more than half of the values are numbers is one of numbers, and a value that is none is wrong.
    Whatever is wrong is a `DataError` that names the file and the line.
    """

    def __init__(self, path: Path, delimiter: str = ",", like: ColumnTable | None = None) -> None:
        """Args:
        path: the file.
        delimiter: what stands between two values.
        like: another table of the data set; columns that hold strings there do so here, numbers or not.
        """
        self.path = path
        self._strings = [] if like is None else [name for name in like.columns if is_text(like.kind(name))]
        self.place = str(path)
        self.delimiter = delimiter
        self._table = self._read()
        self.rows = self._table.num_rows
        self.schema = self._table.schema
        if not self.rows:
            raise DataError(f"{path}: no rows below the names of the columns, expected one or more; get it again")
        if len(self.columns) == 1 and (others := [mark for mark in ",;\t|" if mark in self.columns[0]]):
            name = "tab" if others[0] == "\t" else others[0]
            raise DataError(
                f"{path}: a single column, named {self.columns[0]!r}; set data.dataset.delimiter={name!r} if that is"
                " what stands between two values"
            )
        for column in self.columns:
            self._refuse_words_among_numbers(column)

    def where(self, row: int) -> str:
        """See `ColumnTable.where`: the line of the file, counted from 1."""
        return f"{self.path}, line {self._lines[row]}"

    def arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """See `ColumnTable.arrays`."""
        first = 0
        for batch in self._table.select([column]).to_batches(max_chunksize=BATCH_ROWS):
            yield first, batch.column(0)
            first += batch.num_rows

    def _read(self) -> pa.Table:
        require_utf8(self.path)
        wrong: list[pa_csv.InvalidRow] = []

        def note(row: pa_csv.InvalidRow) -> str:
            wrong.append(row)
            return "error"

        try:
            return pa_csv.read_csv(
                self.path,
                # One thread: only then do wrong rows have their number.
                read_options=pa_csv.ReadOptions(use_threads=False),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=note
                ),
                # Nothing but an empty value is a missing one; words for it, such as NA, are wrong values among numbers.
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: pa.string() for name in self._strings},
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except (pa.ArrowException, OSError) as error:
            if wrong:
                row = wrong[0]
                raise DataError(
                    f"{self._line_of(row.number)}: {row.actual_columns} values, expected {row.expected_columns} as in"
                    " the first line; correct it or drop the line"
                ) from None
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: not a readable CSV file ({reason}); write it again as UTF-8") from error

    def _line_of(self, number: int | None) -> str:
        """A row as an error message names it; `number` counts rows from 1, the names of the columns included."""
        if number is None or number - 2 >= len(self._lines):
            return str(self.path)
        return self.where(number - 2)

    @cached_property
    def _lines(self) -> list[int]:
        """The line on which each row begins; not its number where values have line breaks, or lines are empty."""
        lines, begin = [], 1
        with self.path.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
            reader = csv.reader(stream, delimiter=self.delimiter)
            for values in reader:
                if values:
                    lines.append(begin)
                begin = reader.line_num + 1
        return lines[1:]

    def _refuse_words_among_numbers(self, column: str) -> None:
        """Refuse a column of strings most of which are numbers: the others are wrong, or missing in other words.

        Raises:
            DataError: names the first line whose value is no number.
        """
        if self.columns.count(column) > 1 or not is_text(self.kind(column)) or column in self._strings:
            return
        numeric = np.array([_is_number(text) for text in self.texts(column)], dtype=bool)
        if numeric.mean() > 0.5 and not numeric.all():
            row = int(np.argmin(numeric))
            value = self._table.column(column)[row].as_py()
            raise DataError(
                f"{self.where(row)}: column {column!r} is {value!r}, other values of it are numbers; correct it or drop"
                " the line"
            )


def require_utf8(path: Path) -> None:
    """Check that a file is text in UTF-8.

    Raises:
        DataError: it is compressed, a workbook, or in another encoding; names the line where that is known.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            for beginning, kind, remedy in OTHER_KINDS:
                if start.startswith(beginning):
                    raise DataError(f"{path}: {kind}, expected text in UTF-8; {remedy}")
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    wrong = f"0x{line[error.start]:02x}"
                    raise DataError(
                        f"{path}, line {number}: not UTF-8 (byte {wrong}); write the file again as UTF-8"
                    ) from None
    except OSError as error:
        raise DataError(f"{path}: not a readable file ({error.strerror}); get it again") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
