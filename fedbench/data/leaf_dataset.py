"""The JSON files of the benchmark LEAF as a data set."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from fedbench.data.column_dataset import SPLITS, ColumnDataset, TableSource, split_roles
from fedbench.data.column_rows import ColumnRows, Tables
from fedbench.data.leaf_table import LeafTable
from fedbench.data.parquet_files import SplitFiles, find_splits, refuse_copies, unread_beside
from fedbench.data.root import missing, require_root
from fedbench.errors import ConfigError, DataError

MOST_INDICES = 10_000
"""Labels that are whole numbers below this limit are indices of classes, some of which may have no samples; where any
label is larger, the classes are the numbers that occur."""

ALL_DATA = "all_data"
"""LEAF's folder of the samples before they are divided into splits."""


class LeafDataset(ColumnDataset):
    """LEAF's own JSON files (Caldas et al. 2018): FEMNIST, Shakespeare, Sent140, synthetic; clients are the users.

    The files are in data.root itself, or in a folder of it: train/*.json with test/*.json, as LEAF's preprocessing
    leaves them (also below data/), or all_data/*.json, of which `data.test_fraction` of each user's samples is held
    out. The x of a sample is a list of numbers, a text, or a list of texts; its y is a class: a whole number from 0 on,
    or a text.

    Attributes:
        folder: Name of the folder under `data.root`; null: `data.root` itself.
        field: Of an x that is a list of texts, the place of the one that is read, from 0; in Sent140 it is 4.
        pixels: Height and width of the grey images that an x of as many numbers in [0, 1] is; in FEMNIST [28, 28].
            null: x is an array.
    """

    name: str = "leaf"
    folder: str | None = Field(default=None, min_length=1, pattern=r"^[^/\\]+$")
    field: int | None = None
    pixels: tuple[int, int] | None = None

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        self._find(root)

    def locate(self, root: Path | None, *, test_fraction: float | None) -> TableSource:
        """See `ColumnDataset.locate`."""
        place, splits = self._find(root)
        roles, note = split_roles(splits, str(place), test_fraction)
        chosen = {role: splits[split] for role, split in zip(SPLITS, roles, strict=True) if split}
        files = tuple(itertools.chain(*chosen.values()))
        refuse_copies(files)

        def tables() -> Tables:
            opened = {role: [LeafTable(file, self.field) for file in paths] for role, paths in chosen.items()}
            every = list(itertools.chain(*opened.values()))
            names = _class_names(every)
            for table in every:
                table.names = names
            return opened

        layout = {"format": "leaf", **{role: len(paths) for role, paths in chosen.items()}}
        description = f"LEAF's files in {place.resolve().name}/{note}"
        return TableSource(description, files, layout, tables, unread_beside(files))

    def arranged(self, rows: ColumnRows) -> ColumnRows:
        """See `ColumnDataset.arranged`: lists of numbers as images.

        Raises:
            ConfigError: `pixels` for rows that are no lists of as many numbers.
            DataError: a value outside of [0, 1].
        """
        if self.pixels is None:
            return rows
        height, width = self.pixels
        for key in [key for key in rows.arrays if key.endswith("_inputs")]:
            values = rows.arrays[key]
            if rows.kind != "array" or values.shape[1:] != (height * width,):
                shape = list(values.shape[1:])
                raise ConfigError(
                    f"data.dataset.pixels={[height, width]}: needs rows of {height * width} numbers, these are"
                    f" {rows.kind}s {shape}; correct it, or leave it out"
                )
            if values.min() < 0 or values.max() > 1:
                raise DataError(
                    f"{self.name}: an x in the {key.removesuffix('_inputs')} split has values {values.min():g}.."
                    f"{values.max():g}, pixels are in 0..1; leave data.dataset.pixels out"
                )
            rows.arrays[key] = np.rint(values * 255).astype(np.uint8).reshape(-1, height, width, 1)
        rows.kind = "image"
        return rows

    def _find(self, root: Path | None) -> tuple[Path, SplitFiles]:
        """The folder, and the files of its splits; those of all_data are the training split."""
        inside = f"DIR/{self.folder}" if self.folder else "DIR"
        advice = f"place LEAF's {inside}/train/*.json and {inside}/test/*.json there, or {inside}/{ALL_DATA}/*.json"
        where = require_root(root, self.name, self.folder or "train", advice)
        place = where / self.folder if self.folder else where
        if splits := find_splits(place, ".json"):
            return place, splits
        for folder in (place / ALL_DATA, place / "data" / ALL_DATA):
            if folder.is_dir() and (files := sorted(folder.glob("*.json"))):
                return place, {"train": tuple(files)}
        places = [place / "{train,test}/*.json", place / ALL_DATA / "*.json"]
        raise missing(self.name, where, places, [self.folder or "."], advice, ".json")


def _class_names(tables: Sequence[LeafTable]) -> tuple[str, ...] | None:
    """The classes of all files: texts in sorted order, or the indices from 0 on; None where y is neither."""
    labels = set().union(*(table.labels for table in tables))
    if labels and all(isinstance(label, str) for label in labels):
        return tuple(sorted(labels))
    if labels and all(type(label) is int and 0 <= label < MOST_INDICES for label in labels):
        return tuple(map(str, range(max(labels) + 1)))
    return None
