"""Base class of image data sets: finding, reading and checking their images, in whichever form they are on disk."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedbench.data.base import Dataset, FederatedData, IntArray, Split
from fedbench.data.cache import Entry, cached
from fedbench.data.decode import DECODER_VERSION, ImageKind, of_equal_channels
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out, refuse_test_fraction, require_rows
from fedbench.data.image_source import ImageSource, ImageSplits, parquet_source
from fedbench.data.image_tree import tree_source
from fedbench.data.overlap import count_shared
from fedbench.data.parquet import IMAGE_COLUMNS, ImageRows
from fedbench.data.root import missing, require_root
from fedbench.data.torchvision_root import torchvision_folder, torchvision_source
from fedbench.errors import DataError


class ImageDataset(Dataset):
    """Images under `data.root`: Parquet, or torchvision's own files, or a tree of image files.

    Attributes:
        test_splits: Parquet splits that may serve as the test split, the preferred one first.
        label_columns: names that the Parquet column of the labels may have.
        owner_column: Parquet column with each row's natural client; None: the data have no natural clients.
        torchvision_name: the class in `torchvision.datasets`; None: torchvision does not have the data set.
        known_classes: the names of the classes in label order; None: they come with the data.
        published: mean and standard deviation per channel, in units of [0, 1]; None: none are published.
        published_rows: rows of the training and of the test split; None: not fixed.
        published_classes: number of classes, where their names come with the data.
    """

    test_splits: ClassVar[tuple[str, ...]] = ("test", "validation")
    label_columns: ClassVar[tuple[str, ...]] = ("label",)
    owner_column: ClassVar[str | None] = None
    torchvision_name: ClassVar[str | None] = None
    known_classes: ClassVar[tuple[str, ...] | None] = None
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = None
    published_rows: ClassVar[tuple[int, int] | None] = None
    published_classes: ClassVar[int] = 0

    @property
    @abstractmethod
    def folders(self) -> tuple[str, ...]:
        """The folder names under `data.root` that may hold the Parquet files; the first is the one to write."""

    @property
    @abstractmethod
    def kind(self) -> ImageKind:
        """The format that every image must have."""

    @property
    def tree_folders(self) -> tuple[str, ...]:
        """Folders under `data.root` that may hold a tree of image files."""
        return ()

    @property
    def advice(self) -> str:
        """How to get the data set, to stand in an error message; DIR stands for `data.root`."""
        if self.torchvision_name is not None:
            return f"get it with: fedbench data {self.name} --root DIR"
        columns = [IMAGE_COLUMNS[0], *([self.owner_column] if self.owner_column else []), self.label_columns[0]]
        split = self.test_splits[0]
        test = "" if self.owner_column else f" and {split}-00000-of-00001.parquet"
        trees = "".join(f", or its tree at DIR/{tree}" for tree in self.tree_folders)
        files = f"DIR/{self.folders[0]}/train-00000-of-00001.parquet{test}"
        return f"place {files} with the columns {', '.join(columns)}{trees}"

    def check(self, root: Path | None) -> None:
        """See `Dataset.check`."""
        self.locate(root)

    def locate(self, root: Path | None) -> ImageSource:
        """Find the data under `root`.

        Raises:
            ConfigError: `data.root` is not set.
            DataError: nothing is there; the message names every place that was looked at.
        """
        where = require_root(root, self.name, self.folders[0], self.advice)
        source = self.find_parquet(where) or self.find_other(where)
        if source is None:
            places = [where / folder / "{train,test}-*.parquet" for folder in self.folders]
            if self.torchvision_name:
                places.append(torchvision_folder(where, self.torchvision_name))
            places.extend(where / folder / "train" for folder in self.tree_folders)
            raise missing(self.name, where, places, self.folders, self.advice)
        return source

    def find_parquet(self, root: Path) -> ImageSource | None:
        """The data set as Parquet under `root`, if it is there."""
        return parquet_source(
            [root / folder for folder in self.folders],
            self.kind,
            label_columns=self.label_columns,
            test_splits=self.test_splits,
            test_required=self.owner_column is None,
            class_names=self.known_classes,
            owner_column=self.owner_column,
        )

    def find_other(self, root: Path) -> ImageSource | None:
        """The data set in another form under `root`, if it is there."""
        source = torchvision_source(root, self.torchvision_name) if self.torchvision_name else None
        trees = (tree_source(root / folder, self.kind) for folder in self.tree_folders)
        return source or next((tree for tree in trees if tree is not None), None)

    def read(self, source: ImageSource) -> tuple[ImageSplits, tuple[str, ...]]:
        """Decode and check a source.

        Returns:
            The splits and the class names.

        Raises:
            DataError: damaged or foreign data.
        """
        splits = source.read().by_name
        names = splits["train"].class_names or self.known_classes
        if names is None:
            names = self._numbers_as_names([rows.labels for rows in splits.values()], source)
        if len(names) < 2:
            raise DataError(
                f"{self.name}, {source.description}: a single class ({', '.join(names)}), expected at least 2; give"
                " each class its label, or its folder"
            )
        if self.kind.channels is None:
            images = of_equal_channels([rows.images for rows in splits.values()])
            splits = {
                split: replace(rows, images=alike) for (split, rows), alike in zip(splits.items(), images, strict=True)
            }
        for split, rows in splits.items():
            self._check(split, rows, names, source)
        return ImageSplits(splits["train"], splits.get("test"), splits.get("validation")), names

    def _numbers_as_names(self, labels: Sequence[IntArray], source: ImageSource) -> tuple[str, ...]:
        """The names "0", "1", ... of classes that the data do not name.

        Raises:
            DataError: a label between 0 and the largest one has no rows, as when the classes are numbered from 1.
        """
        seen = np.unique(np.concatenate(labels))
        unseen = np.flatnonzero(np.append(seen, -1) != np.arange(len(seen) + 1))[0]
        if unseen < len(seen):
            raise DataError(
                f"{self.name}, {source.description}: labels {seen[0]}..{seen[-1]}, none of them {unseen}; number the"
                " classes from 0 without gaps, or name them in the metadata of the files"
            )
        return tuple(str(label) for label in seen)

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        if self.owner_column is None:
            refuse_test_fraction(self.name, test_fraction)
        source = self.locate(root)

        def build() -> tuple[Mapping[str, npt.NDArray[Any]], dict[str, Any]]:
            splits, names = self.read(source)
            shared = 0 if splits.test is None else count_shared(splits.train.images, splits.test.images)
            return _to_arrays(splits), {"class_names": names, "test_rows_in_train": shared}

        parameters = {
            "decoder": DECODER_VERSION,
            "layout": dict(source.layout),
            "kind": asdict(self.kind),
            "classes": self.known_classes,
            "columns": [*self.label_columns, self.owner_column],
        }
        entry = cached(self.folders[0], source.files, parameters, build)
        train, test, note, digest = _splits(entry, self.name, test_fraction, seed)
        names = tuple(entry.facts["class_names"])
        data = self._assemble(train, test, names, source.description + note, digest, _split(entry, "validation"))
        return replace(
            data,
            test_split_by_seed="test_images" not in entry.arrays,
            test_rows_in_train=entry.facts["test_rows_in_train"],
            remarks=source.remarks,
        )

    def outline(self) -> FederatedData | None:
        """See `Dataset.outline`."""
        if self.published_rows is None or self.kind.size is None:
            return None
        names = self.known_classes or tuple(str(label) for label in range(self.published_classes))
        shape = (*self.kind.size, self.kind.channels or 3)
        train, test = (
            Split(np.broadcast_to(np.uint8(0), (rows, *shape)), np.arange(rows, dtype=np.int64) % len(names))
            for rows in self.published_rows
        )
        return self._assemble(train, test, names, "its published size and shape", "")

    def _assemble(
        self,
        train: Split,
        test: Split,
        names: tuple[str, ...],
        source: str,
        digest: str,
        validation: Split | None = None,
    ) -> FederatedData:
        mean, std = self.published or (None, None)
        return FederatedData(
            name=self.name,
            kind="image",
            train=train,
            test=test,
            class_names=names,
            mean=mean,
            std=std,
            vocabulary_size=0,
            padding_index=-1,
            source=source,
            fingerprint=digest,
            validation=validation,
        )

    def _check(self, split: str, rows: ImageRows, names: tuple[str, ...], source: ImageSource) -> None:
        """Check the classes, labels and image sizes of a split, which may come from other files than Parquet.

        Raises:
            DataError: they are not those of this data set, or differ from the other split's.
        """
        place = f"{self.name}, {source.description}, {split} split"
        if self.known_classes is not None and len(names) != len(self.known_classes):
            raise DataError(
                f"{place}: {len(names)} classes, expected {len(self.known_classes)}; this is another data set"
            )
        if rows.class_names is not None and rows.class_names != names:
            raise DataError(f"{place}: other class names than in the train split; these are two data sets")
        if rows.labels.min() < 0 or rows.labels.max() >= len(names):
            given = f"{rows.labels.min()}..{rows.labels.max()}"
            raise DataError(f"{place}: labels {given}, expected 0..{len(names) - 1}; get the data set again")
        height, width, channels = rows.images.shape[1:]
        if channels != (self.kind.channels or channels) or self.kind.size not in (None, (height, width)):
            expected = f"{self.kind.size or 'any size'} with {self.kind.channels} channel(s)"
            raise DataError(f"{place}: images of ({height}, {width}) with {channels} channel(s), expected {expected}")


def _to_arrays(splits: ImageSplits) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split, rows in splits.by_name.items():
        arrays |= {f"{split}_images": rows.images, f"{split}_labels": rows.labels}
    owned = {split: rows.owners for split, rows in splits.by_name.items() if rows.owners is not None}
    if owned:
        codes = np.unique(np.concatenate(list(owned.values())), return_inverse=True)[1].astype(np.int64)
        borders = np.cumsum([len(owners) for owners in owned.values()])[:-1]
        of_split = np.split(codes, borders)
        arrays |= {f"{split}_owners": part for split, part in zip(owned, of_split, strict=True)}
    return arrays


def _split(entry: Entry, split: str) -> Split | None:
    """A split of a cache entry; None where it has none by that name."""
    arrays = entry.arrays
    if f"{split}_images" not in arrays:
        return None
    return Split(arrays[f"{split}_images"], arrays[f"{split}_labels"], arrays.get(f"{split}_owners"))


def _splits(entry: Entry, name: str, test_fraction: float | None, seed: int) -> tuple[Split, Split, str, str]:
    """The splits of a cache entry; where it has no test split, one is held out.

    Returns:
        The training split, the test split, a note for the data's description, and the fingerprint.
    """
    rows, test = _split(entry, "train"), _split(entry, "test")
    assert rows is not None
    if test is not None:
        refuse_test_fraction(name, test_fraction)
        return rows, test, "", entry.fingerprint
    require_rows(len(rows), name)
    groups = rows.labels if rows.owners is None else rows.owners
    kept, held = (_select(rows, index) for index in hold_out(groups, test_fraction, seed))
    fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
    note = f", {fraction:g} of each writer's rows held out as the test split"
    return kept, held, note, derived_fingerprint(entry.fingerprint, [fraction, seed])


def _select(rows: Split, index: npt.NDArray[np.int64]) -> Split:
    return Split(rows.inputs[index], rows.labels[index], None if rows.owners is None else rows.owners[index])


def derived_fingerprint(digest: str, parameters: object) -> str:
    """The fingerprint of data that are made from those with fingerprint `digest` under some parameters (plain JSON)."""
    return hashlib.sha256(json.dumps([digest, parameters]).encode()).hexdigest()
