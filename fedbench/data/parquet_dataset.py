"""Data sets as Parquet files whose columns are named by configuration."""

import itertools
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from fedbench.data.column_dataset import SPLITS, ColumnDataset, TableSource, split_roles
from fedbench.data.column_rows import Tables
from fedbench.data.column_table import ColumnTable
from fedbench.data.parquet_files import find_splits, only_file, refuse_copies, unread_beside
from fedbench.data.parquet_table import ParquetTable
from fedbench.data.root import missing, require_root


class ParquetDataset(ColumnDataset):
    """Parquet of any columns: inputs, label and owner are named, or found by name and type; images, texts, numbers.

    The files are in data.root itself, or in a folder of it: train-*.parquet, and test-*.parquet or
    validation-*.parquet where there are such; without them `data.test_fraction` of the rows is held out. Types are
    Arrow's, and those of Hugging Face's metadata (Image, ClassLabel, Sequence, Array2D).

    Attributes:
        folder: Name of the folder under `data.root`; null: `data.root` itself.
    """

    name: str = "parquet"
    folder: str | None = Field(default=None, min_length=1, pattern=r"^[^/\\]+$")

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        source = self.locate(root, test_fraction=None)
        if (first := ParquetTable(source.files[0])).rows:
            self.choose({"train": [first]})

    def locate(self, root: Path | None, *, test_fraction: float | None) -> TableSource:
        """See `ColumnDataset.locate`."""
        return located(self.name, root, self.folder, ".parquet", lambda file, _: ParquetTable(file), test_fraction)


def located(
    name: str,
    root: Path | None,
    folder: str | None,
    suffix: str,
    open_table: Callable[[Path, ColumnTable | None], ColumnTable],
    test_fraction: float | None,
) -> TableSource:
    """The tables that are files with a suffix in `data.root`, or in a folder of it.

    Args:
        name: of the data set, for messages.
        folder: in `data.root`; None: `data.root` itself.
        suffix: of the files.
        open_table: makes the table of a file; given the first table of the training split, too, if there is one.

    Raises:
        ConfigError: `data.root` is not set, or `test_fraction` for data with a test split.
        DataError: there are none, or a split is incomplete or there twice.
    """
    inside = f"DIR/{folder}" if folder else "DIR"
    advice = f"place {inside}/train-00000-of-00001{suffix} there, and test-00000-of-00001{suffix} where there is one"
    where = require_root(root, name, folder or f"train-*{suffix}", advice)
    place = where / folder if folder else where
    splits = find_splits(place, suffix) or only_file(place, suffix)
    if not splits:
        raise missing(name, where, [place / f"{{train,test}}-*{suffix}"], [folder or "."], advice, suffix)
    roles, note = split_roles(splits, str(place), test_fraction)
    chosen = {role: splits[split] for role, split in zip(SPLITS, roles, strict=True) if split}
    files = tuple(itertools.chain(*chosen.values()))
    refuse_copies(files)

    def tables() -> Tables:
        opened: dict[str, list[ColumnTable]] = {role: [] for role in chosen}
        for role, paths in chosen.items():
            for file in paths:
                opened[role].append(open_table(file, opened["train"][0] if opened["train"] else None))
        return opened

    layout = {"format": suffix, **{role: len(paths) for role, paths in chosen.items()}}
    kind = {".parquet": "Parquet", ".csv": "CSV"}[suffix]
    return TableSource(f"{kind} in {place.resolve().name}/{note}", files, layout, tables, unread_beside(files))
