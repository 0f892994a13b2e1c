"""Data sets as CSV files whose columns are named by configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from fedbench.data.column_dataset import ColumnDataset, TableSource
from fedbench.data.column_table import ColumnTable
from fedbench.data.csv_table import CsvTable
from fedbench.data.parquet_dataset import located


def _tab(value: object) -> object:
    return "\t" if value in ("tab", "\\t") else value


class CsvDataset(ColumnDataset):
    """CSV with the names of the columns in the first line: inputs, label and owner are named, or found; UTF-8.

    The files are in data.root itself, or in a folder of it: train.csv, and test.csv or validation.csv where there are
    such; or one file of any name. Without a test split `data.test_fraction` of the rows is held out.

    Attributes:
        folder: Name of the folder under `data.root`; null: `data.root` itself.
        delimiter: What stands between two values, e.g. ';'; tab: a tabulator.
    """

    name: str = "csv"
    folder: str | None = Field(default=None, min_length=1, pattern=r"^[^/\\]+$")
    delimiter: Annotated[str, BeforeValidator(_tab)] = Field(default=",", min_length=1, max_length=1)

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        self.locate(root, test_fraction=None)

    def locate(self, root: Path | None, *, test_fraction: float | None) -> TableSource:
        """See `ColumnDataset.locate`."""
        return located(self.name, root, self.folder, ".csv", self._open, test_fraction)

    def _open(self, file: Path, like: ColumnTable | None) -> CsvTable:
        return CsvTable(file, self.delimiter, like)
