"""Data sets of the Hugging Face Hub, or folders of one's own, as the library `datasets` reads them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from fedbench.components.optional_library import check_library, optional_library
from fedbench.data.column_dataset import SPLITS, ColumnDataset, TableSource, split_roles
from fedbench.data.column_rows import Tables
from fedbench.data.column_table import BATCH_ROWS, ColumnTable, plain
from fedbench.data.parquet_files import SPLIT_NAMES
from fedbench.errors import ConfigError, DataError
from fedbench.system.home import expanded

PREFIX = "hf:"
EXTRA, PURPOSE = "huggingface", "data.dataset=hf:..."


class HubDataset(ColumnDataset):
    """A data set of the Hugging Face Hub, or a folder that the library datasets reads; downloaded where it must be.

    hf:OWNER/NAME is taken from the library's cache or from the Hub; with HF_HUB_OFFLINE=1 from the cache alone.
    hf:FOLDER, or with data.root a folder there, is read where it is. Needs the extra huggingface.

    Attributes:
        name: hf:OWNER/NAME on the Hub, or hf:FOLDER.
        subset: Name of the part of the data set that is loaded, which the Hub calls its configuration. null: the only
            one, or the default one.
        revision: Commit, tag or branch on the Hub. null: the newest.
    """

    name: str = Field(pattern=r"^hf:.+$")
    subset: str | None = None
    revision: str | None = None

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`.

        Raises:
            ConfigError: the library is not installed, or `revision` is set for a folder.
            DataError: there is no such folder under `data.root`.
        """
        check_library("datasets", EXTRA, PURPOSE)
        folder = self._folder(root)
        if folder is not None and self.revision is not None:
            raise ConfigError(
                f"data.dataset.revision={self.revision}: has no effect, {folder} is a folder; leave it out"
            )

    def locate(self, root: Path | None, *, test_fraction: float | None) -> TableSource:
        """See `ColumnDataset.locate`."""
        self.check(root)
        folder = self._folder(root)
        splits = self._loaded(folder)
        known: dict[str, Any] = {}
        for name, split in splits.items():
            role = SPLIT_NAMES.get(str(name).lower())
            if role is not None and role not in known:
                known[role] = split
        if "train" not in known:
            raise DataError(f"{self.name}: no split train, found {', '.join(map(str, splits))}")
        roles, note = split_roles(known, self.name, test_fraction)
        chosen = {role: known[split] for role, split in zip(SPLITS, roles, strict=True) if split}
        files = {role: [Path(entry["filename"]) for entry in split.cache_files] for role, split in chosen.items()}

        def tables() -> Tables:
            return {role: [HubTable(f"{self.name}, {role} split", split)] for role, split in chosen.items()}

        where = "the Hugging Face data set" if folder is None else "the folder"
        name = self.name.removeprefix(PREFIX) if folder is None else folder.resolve().name
        layout = {"format": "datasets", **{role: len(paths) for role, paths in files.items()}}
        description = f"{where} {name}{f' ({self.subset})' if self.subset else ''}{note}"
        return TableSource(description, tuple(file for paths in files.values() for file in paths), layout, tables)

    def _folder(self, root: Path | None) -> Path | None:
        """The folder that is meant; None: a data set of the Hub.

        Raises:
            DataError: `data.root` is set, and has no such folder, or the name is that of a folder that is not there.
        """
        name = self.name.removeprefix(PREFIX)
        folder = expanded(name) if root is None else root / name
        if folder.is_dir():
            return folder
        if root is not None or name.startswith((".", "/", "~")):
            raise DataError(
                f"data.dataset={self.name}: no such folder {folder}; for a data set of the Hub leave data.root out and"
                " write hf:OWNER/NAME"
            )
        return None

    def _loaded(self, folder: Path | None) -> dict[str, Any]:
        """{split: datasets.Dataset}.

        Raises:
            DataError: it cannot be read or reached, or `subset` must be one of several.
        """
        with optional_library(EXTRA, PURPOSE):
            import datasets
        with _quiet(datasets), self._readable(datasets, folder):
            if folder is not None and (folder / "dataset_dict.json").is_file():
                return dict(datasets.load_from_disk(str(folder)))
            path = self.name.removeprefix(PREFIX) if folder is None else str(folder)
            return dict(datasets.load_dataset(path, self.subset, revision=self.revision))

    @contextmanager
    def _readable(self, datasets: Any, folder: Path | None) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            text = " ".join(str(error).split())
            if folder is not None:
                raise DataError(f"{folder}: the library datasets cannot read it ({text[:200]})") from error
            if isinstance(error, datasets.exceptions.DatasetNotFoundError):
                raise DataError(
                    f"data.dataset={self.name}: no such data set on the Hub, or none that is open to you ({text[:200]})"
                ) from error
            if isinstance(error, ConnectionError):
                cache = datasets.config.HF_DATASETS_CACHE
                offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE")
                why = "HF_HUB_OFFLINE is set" if offline else "there is no network, or the Hub does not answer"
                raise DataError(
                    f"data.dataset={self.name}: {why}, and the cache {cache} does not have it; load it once where"
                    " there is a network and copy that folder (HF_DATASETS_CACHE), or place its Parquet files under"
                    " data.root and use data.dataset=parquet"
                ) from error
            raise DataError(
                f"data.dataset={self.name}: cannot be loaded ({text[:300]}); where it has several parts set"
                " data.dataset.subset=NAME"
            ) from error


class HubTable(ColumnTable):
    """One split of a data set of the library `datasets`."""

    def __init__(self, place: str, split: Any) -> None:
        """Args:
        place: the data set and the split, for messages.
        split: a `datasets.Dataset`.
        """
        self.place = place
        self._split = split
        self.rows = split.num_rows

    @cached_property
    def schema(self) -> pa.Schema:
        """See `ColumnTable.schema`: with the features of the library in its metadata."""
        return self._split.features.arrow_schema

    def arrays(self, column: str) -> Iterator[tuple[int, pa.Array]]:
        """See `ColumnTable.arrays`."""
        first = 0
        for table in self._split.select_columns([column]).with_format("arrow").iter(BATCH_ROWS):
            for chunk in table.column(0).chunks:
                yield first, plain(chunk)
                first += len(chunk)

    def referenced(self, path: str | None) -> bytes | None:
        """See `ColumnTable.referenced`: of a folder of image files the library keeps the paths."""
        if path is None or not Path(path).is_file():
            return None
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Context in which the library shows a bar of its progress on terminals alone, and no warnings."""
    level = datasets.logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
