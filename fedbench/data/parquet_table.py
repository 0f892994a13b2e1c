"""One Parquet file, column by column."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedbench.data.column_table import BATCH_ROWS, ColumnTable, plain
from fedbench.errors import DataError


class ParquetTable(ColumnTable):
    """One Parquet file; whatever is wrong with it is a `DataError` that names its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)
        with self._readable():
            # Checksums of pages are compared where the file has any, as those that fedbench writes do.
            self.file = pq.ParquetFile(path, page_checksum_verification=True)
            self.rows = self.file.metadata.num_rows
            self.schema = self.file.schema_arrow

    def arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """See `ColumnTable.arrays`."""
        first = 0
        with self._readable():
            for batch in self.file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                yield first, plain(batch.column(0))
                first += batch.num_rows

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: not a readable Parquet file ({reason}); get the file again") from error
