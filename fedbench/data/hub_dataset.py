"""Data sets of the Hugging Face Hub, or folders of one's own, as the library `datasets` reads them."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
OFFLINE = "HF_HUB_OFFLINE is set"
COMMIT = re.compile(r"[0-9a-f]{40}")

SECONDS_TO_ANSWER = 10.0
"""Time that the Hub has for its first answer."""

SHOWN = 8
"""Parts of a data set that a line names at most."""

FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError)
"""What the libraries raise for data that they cannot find or read."""


class HubDataset(ColumnDataset):
    """A data set of the Hugging Face Hub, or a folder that the library datasets reads; downloaded where it must be.

    hf:OWNER/NAME is taken from the Hub, or from the library's cache where that has the newest commit; with
    HF_HUB_OFFLINE=1, or where the Hub does not answer, from the cache alone; its commit is on record. hf:FOLDER, or
    with data.root a folder there, is read where it is. Needs the extra huggingface.

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
        splits, remarks = self._loaded(folder)
        known: dict[str, Any] = {}
        others = []
        for name, split in splits.items():
            role = SPLIT_NAMES.get(str(name).lower())
            if role is None or role in known:
                others.append(str(name))
            else:
                known[role] = split
        if "train" not in known:
            raise DataError(f"{self.name}: no split train, found {', '.join(map(str, splits))}")
        if others:
            remarks = (*remarks, f"splits that are not used: {', '.join(others)}")
        roles, note = split_roles(known, self.name, test_fraction)
        chosen = {role: known[split] for role, split in zip(SPLITS, roles, strict=True) if split}
        files = {role: [Path(entry["filename"]) for entry in split.cache_files] for role, split in chosen.items()}

        def tables() -> Tables:
            return {role: [HubTable(f"{self.name}, {role} split", split)] for role, split in chosen.items()}

        layout = {"format": "datasets", **{role: len(paths) for role, paths in files.items()}}
        return TableSource(
            self._description(folder, chosen["train"]) + note,
            tuple(file for paths in files.values() for file in paths),
            layout,
            tables,
            remarks,
        )

    def _description(self, folder: Path | None, split: Any) -> str:
        """The source of the rows, in words; a data set of the Hub is named with its part and its commit."""
        if folder is not None:
            return f"the folder {folder.resolve().name}{f' ({self.subset})' if self.subset else ''}"
        part = split.info.config_name
        facts = [*([str(part)] if part not in (None, "default") else []), *_commit_of(split)]
        name = self.name.removeprefix(PREFIX)
        return f"the Hugging Face data set {name}" + (f" ({', '.join(facts)})" if facts else "")

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

    def _loaded(self, folder: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
        """{split: datasets.Dataset}, and what a user should know of where they come from.

        Raises:
            DataError: it cannot be read or reached, or `subset` must be one of several, or the cache has another
                commit than `revision`.
        """
        with optional_library(EXTRA, PURPOSE):
            import datasets
        with _quiet(datasets):
            if folder is not None:
                return self._loaded_from(folder, datasets), ()
            why = offline_reason(datasets)
            remarks = () if why in ("", OFFLINE) else (f"{why}; taken from the cache of the library datasets",)
            with _offline(datasets) if why else nullcontext(), self._readable(datasets, why):
                name = self.name.removeprefix(PREFIX)
                splits = dict(datasets.load_dataset(name, self.subset, revision=self.revision))
            if why and self.revision is not None:
                self._check_commit(next(iter(splits.values())), why)
            return splits, remarks

    def _loaded_from(self, folder: Path, datasets: Any) -> dict[str, Any]:
        try:
            if (folder / "dataset_dict.json").is_file():
                return dict(datasets.load_from_disk(str(folder)))
            return dict(datasets.load_dataset(str(folder), self.subset))
        except (*FAILURES, datasets.exceptions.DatasetsError) as error:
            text = " ".join(str(error).split())
            raise DataError(f"{folder}: the library datasets cannot read it ({text[:200]})") from error

    def _check_commit(self, split: Any, why: str) -> None:
        """Refuse rows of another commit than `revision`: the library takes the newest of its cache, whatever is asked.

        Raises:
            DataError: names the commit that the cache has, and the one that is asked for.
        """
        from huggingface_hub import constants

        asked = self.revision or ""
        if not COMMIT.fullmatch(asked):
            folder = f"datasets--{self.name.removeprefix(PREFIX).replace('/', '--')}"
            reference = Path(constants.HF_HUB_CACHE, folder, "refs", asked)
            asked = reference.read_text(encoding="utf-8").strip() if reference.is_file() else asked
        cached = "".join(_commit_of(split)).removeprefix("commit ")
        if cached != asked:
            raise DataError(
                f"data.dataset.revision={self.revision}: {why}, and the cache has the commit {cached or 'unknown'} of"
                f" {self.name}; load that revision once where there is a network, or ask for this one"
            )

    @contextmanager
    def _readable(self, datasets: Any, why_offline: str) -> Iterator[None]:
        try:
            yield
        except (*FAILURES, datasets.exceptions.DatasetsError) as error:
            text = " ".join(str(error).split())
            if why_offline:
                raise DataError(
                    f"data.dataset={self.name}: {why_offline}, and the cache {datasets.config.HF_DATASETS_CACHE} does"
                    f" not have {f'its part {self.subset}' if self.subset else 'it'}; load it once where there is a"
                    " network and copy that folder (HF_DATASETS_CACHE), or place its Parquet files under data.root and"
                    " use data.dataset=parquet"
                ) from error
            if isinstance(error, datasets.exceptions.DatasetNotFoundError):
                raise DataError(
                    f"data.dataset={self.name}: no such data set on the Hub, or none that is open to you ({text[:200]})"
                ) from error
            self._refuse_unknown_part(datasets)
            raise DataError(f"data.dataset={self.name}: cannot be loaded ({text[:300]})") from error

    def _refuse_unknown_part(self, datasets: Any) -> None:
        """Refuse `subset` where the data set has no such part, or several of which it names none.

        Raises:
            DataError: names the parts.
        """
        try:
            parts = datasets.get_dataset_config_names(self.name.removeprefix(PREFIX), revision=self.revision)
        except (*FAILURES, datasets.exceptions.DatasetsError):
            return
        shown = ", ".join(parts[:SHOWN]) + (f", ... ({len(parts)} parts)" if len(parts) > SHOWN else "")
        if self.subset is not None and self.subset not in parts:
            raise DataError(f"data.dataset.subset={self.subset}: {self.name} has no such part; found {shown}")
        if self.subset is None and len(parts) > 1:
            raise DataError(f"data.dataset={self.name}: has several parts: {shown}; set data.dataset.subset=NAME")


def _commit_of(split: Any) -> list[str]:
    """The commit of the Hub that a split was made from, as the name of its folder in the cache tells it; [] if not."""
    folders = {Path(entry["filename"]).parent.name for entry in split.cache_files}
    return [f"commit {folder}" for folder in folders if COMMIT.fullmatch(folder)]


def offline_reason(datasets: Any) -> str:
    """Why the Hub is not to be asked, to stand in a message; "" where it answers.

    It is asked once for its front page: the library itself tries for up to a minute, also where it has the data.
    """
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return OFFLINE
    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=SECONDS_TO_ANSWER)
    except Exception as error:  # whatever the HTTP client of the library raises
        return f"the Hub at {datasets.config.HF_ENDPOINT} does not answer ({' '.join(str(error).split())[:100]})"
    return ""


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Context in which the libraries ask nobody, as with HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


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
    """Context in which the libraries show a bar of their progress on terminals alone, and nothing else."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
