"""The image data sets: the folders in which each is looked for, and the format that it must have."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fedbench.data.base import Dataset, FederatedData, Split
from fedbench.data.cache import Entry, cached
from fedbench.data.cifar100_superclasses import FINE_NAMES, SUPERCLASSES, coarse_labels
from fedbench.data.decode import DECODER_VERSION, ImageKind
from fedbench.data.holdout import DEFAULT_TEST_FRACTION, hold_out, refuse_test_fraction, require_rows
from fedbench.data.image_source import ImageSource, parquet_source
from fedbench.data.image_tree import tree_source
from fedbench.data.parquet import ImageRows
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
        tree_folders: folders under `data.root` that may hold a tree of image files.
        known_classes: the names of the classes in label order; None: they come with the data.
        published: mean and standard deviation per channel, in units of [0, 1]; None: none are published.
        published_rows: rows of the training and of the test split; None: not fixed.
        published_classes: number of classes, where their names come with the data.
    """

    test_splits: ClassVar[tuple[str, ...]] = ("test", "validation")
    label_columns: ClassVar[tuple[str, ...]] = ("label",)
    owner_column: ClassVar[str | None] = None
    torchvision_name: ClassVar[str | None] = None
    tree_folders: ClassVar[tuple[str, ...]] = ()
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

    def locate(self, root: Path | None) -> ImageSource:
        """Find the data under `root`.

        Raises:
            ConfigError: `data.root` is not set.
            DataError: nothing is there; the message names every place that was looked at.
        """
        where = require_root(root, self.name, self.folders[0])
        source = self.find_parquet(where) or self.find_other(where)
        if source is None:
            places = [where / folder / "{train,test}-*.parquet" for folder in self.folders]
            if self.torchvision_name:
                places.append(torchvision_folder(where, self.torchvision_name))
            places.extend(where / folder / "train" for folder in self.tree_folders)
            raise missing(self.name, where, places)
        return source

    def find_parquet(self, root: Path) -> ImageSource | None:
        """The data set as Parquet under `root`, if it is there."""
        return parquet_source(
            [root / folder for folder in self.folders],
            self.kind,
            label_columns=self.label_columns,
            test_splits=self.test_splits,
            test_required=self.owner_column is None,
            classes=len(self.known_classes) if self.known_classes else None,
            owner_column=self.owner_column,
        )

    def find_other(self, root: Path) -> ImageSource | None:
        """The data set in another form under `root`, if it is there."""
        source = torchvision_source(root, self.torchvision_name) if self.torchvision_name else None
        trees = (tree_source(root / folder, self.kind) for folder in self.tree_folders)
        return source or next((tree for tree in trees if tree is not None), None)

    def read(self, source: ImageSource) -> tuple[ImageRows, ImageRows | None, tuple[str, ...]]:
        """Decode and check a source.

        Returns:
            The training split, the test split (None where the source has none) and the class names.

        Raises:
            DataError: damaged or foreign data.
        """
        train, test = source.read()
        names = train.class_names or self.known_classes
        if names is None:
            rows = [train.labels] if test is None else [train.labels, test.labels]
            names = tuple(str(label) for label in range(max(int(labels.max()) for labels in rows) + 1))
        for split, rows_of_split in (("train", train), ("test", test)):
            if rows_of_split is not None:
                self._check(split, rows_of_split, names, source)
        return train, test, names

    def load(self, root: Path | None, *, test_fraction: float | None, seed: int) -> FederatedData:
        """See `Dataset.load`."""
        if self.owner_column is None:
            refuse_test_fraction(self.name, test_fraction)
        source = self.locate(root)

        def build() -> tuple[Mapping[str, npt.NDArray[Any]], dict[str, Any]]:
            train, test, names = self.read(source)
            return _to_arrays(train, test), {"class_names": names}

        parameters = {
            "decoder": DECODER_VERSION,
            "layout": dict(source.layout),
            "kind": asdict(self.kind),
            "classes": self.known_classes,
            "columns": [*self.label_columns, self.owner_column],
        }
        entry = cached(self.folders[0], source.files, parameters, build)
        train, test, note, digest = _splits(entry, self.name, test_fraction, seed)
        data = self._assemble(train, test, tuple(entry.facts["class_names"]), source.description + note, digest)
        return replace(data, test_split_by_seed="test_images" not in entry.arrays)

    def outline(self) -> FederatedData | None:
        """See `Dataset.outline`."""
        if self.published_rows is None or self.kind.size is None:
            return None
        names = self.known_classes or tuple(str(label) for label in range(self.published_classes))
        shape = (*self.kind.size, self.kind.channels)
        train, test = (
            Split(np.broadcast_to(np.uint8(0), (rows, *shape)), np.arange(rows, dtype=np.int64) % len(names))
            for rows in self.published_rows
        )
        return self._assemble(train, test, names, "its published size and shape", "")

    def _assemble(self, train: Split, test: Split, names: tuple[str, ...], source: str, digest: str) -> FederatedData:
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
        if channels != self.kind.channels or self.kind.size not in (None, (height, width)):
            expected = f"{self.kind.size or 'any size'} with {self.kind.channels} channel(s)"
            raise DataError(f"{place}: images of ({height}, {width}) with {channels} channel(s), expected {expected}")


class Cifar10(ImageDataset):
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32, 10 classes (Krizhevsky 2009)."""

    name: str = "cifar10"
    folders: ClassVar[tuple[str, ...]] = ("cifar10", "cifar-10")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(32, 32))
    published_rows: ClassVar[tuple[int, int] | None] = (50_000, 10_000)
    torchvision_name: ClassVar[str | None] = "CIFAR10"
    known_classes: ClassVar[tuple[str, ...] | None] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    # Over all pixels of the training split; widely quoted in these four digits.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    )


class Cifar100(ImageDataset):
    """CIFAR-100: 50,000 + 10,000 colour images of 32x32, 100 classes in 20 superclasses (Krizhevsky 2009).

    Attributes:
        labels: Whether to classify into the 100 classes (fine) or into their 20 superclasses (coarse).
    """

    name: str = "cifar100"
    labels: Literal["fine", "coarse"] = "fine"

    folders: ClassVar[tuple[str, ...]] = ("cifar100", "cifar-100")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(32, 32))
    published_rows: ClassVar[tuple[int, int] | None] = (50_000, 10_000)
    label_columns: ClassVar[tuple[str, ...]] = ("fine_label", "label")
    torchvision_name: ClassVar[str | None] = "CIFAR100"
    known_classes: ClassVar[tuple[str, ...] | None] = FINE_NAMES
    # Wang et al., "Why Go Full?", NeurIPS 2024.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.507, 0.487, 0.441),
        (0.267, 0.256, 0.276),
    )

    def _assemble(self, train: Split, test: Split, names: tuple[str, ...], source: str, digest: str) -> FederatedData:
        if self.labels == "coarse":
            train, test = (Split(split.inputs, coarse_labels(split.labels), split.owners) for split in (train, test))
            names, source, digest = tuple(SUPERCLASSES), f"{source}, superclasses", _derived(digest, "coarse")
        return super()._assemble(train, test, names, source, digest)


class Mnist(ImageDataset):
    """MNIST: 60,000 + 10,000 grey images of 28x28, handwritten digits (LeCun et al. 1998)."""

    name: str = "mnist"
    folders: ClassVar[tuple[str, ...]] = ("mnist",)
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    published_rows: ClassVar[tuple[int, int] | None] = (60_000, 10_000)
    torchvision_name: ClassVar[str | None] = "MNIST"
    known_classes: ClassVar[tuple[str, ...] | None] = tuple("0123456789")
    # The figures of PyTorch's own MNIST example.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = ((0.1307,), (0.3081,))


class FashionMnist(ImageDataset):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28x28, 10 kinds of clothing (Xiao et al. 2017)."""

    name: str = "fashion-mnist"
    folders: ClassVar[tuple[str, ...]] = ("fashion-mnist", "fashion_mnist")
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    published_rows: ClassVar[tuple[int, int] | None] = (60_000, 10_000)
    torchvision_name: ClassVar[str | None] = "FashionMNIST"
    known_classes: ClassVar[tuple[str, ...] | None] = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    # Over all pixels of the training split; widely quoted in these four digits.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = ((0.2860,), (0.3530,))


class TinyImageNet(ImageDataset):
    """Tiny-ImageNet: 100,000 + 10,000 colour images of 64x64, 200 classes; validation is the test split."""

    name: str = "tiny-imagenet"
    folders: ClassVar[tuple[str, ...]] = ("tiny-imagenet", "tiny_imagenet")
    kind: ClassVar[ImageKind] = ImageKind(channels=3, size=(64, 64), grey_as_rgb=True)
    published_rows: ClassVar[tuple[int, int] | None] = (100_000, 10_000)
    published_classes: ClassVar[int] = 200
    test_splits: ClassVar[tuple[str, ...]] = ("validation", "test")
    tree_folders: ClassVar[tuple[str, ...]] = ("tiny-imagenet-200",)
    # Wang et al., "Why Go Full?", NeurIPS 2024.
    published: ClassVar[tuple[tuple[float, ...], tuple[float, ...]] | None] = (
        (0.507, 0.487, 0.441),
        (0.267, 0.256, 0.276),
    )


class Femnist(ImageDataset):
    """FEMNIST: grey 28x28 images of 62 characters, by writer (Caldas et al., "LEAF", 2018).

    Published without a test split: `data.test_fraction` of each writer's rows is held out, drawn by the seed.
    """

    name: str = "femnist"
    folders: ClassVar[tuple[str, ...]] = ("femnist",)
    kind: ClassVar[ImageKind] = ImageKind(channels=1, size=(28, 28))
    label_columns: ClassVar[tuple[str, ...]] = ("character", "label")
    owner_column: ClassVar[str | None] = "writer_id"
    known_classes: ClassVar[tuple[str, ...] | None] = tuple(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    )


def _to_arrays(train: ImageRows, test: ImageRows | None) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {"train_images": train.images, "train_labels": train.labels}
    if test is not None:
        arrays |= {"test_images": test.images, "test_labels": test.labels}
    if train.owners is not None:
        owners = train.owners if test is None or test.owners is None else np.concatenate([train.owners, test.owners])
        codes = np.unique(owners, return_inverse=True)[1].astype(np.int64)
        arrays["train_owners"] = codes[: len(train.labels)]
        if test is not None:
            arrays["test_owners"] = codes[len(train.labels) :]
    return arrays


def _splits(entry: Entry, name: str, test_fraction: float | None, seed: int) -> tuple[Split, Split, str, str]:
    """The splits of a cache entry; where it has no test split, one is held out.

    Returns:
        The training split, the test split, a note for the data's description, and the fingerprint.
    """
    arrays = entry.arrays
    rows = Split(arrays["train_images"], arrays["train_labels"], arrays.get("train_owners"))
    if "test_images" in arrays:
        refuse_test_fraction(name, test_fraction)
        test = Split(arrays["test_images"], arrays["test_labels"], arrays.get("test_owners"))
        return rows, test, "", entry.fingerprint
    require_rows(len(rows), name)
    groups = rows.labels if rows.owners is None else rows.owners
    kept, held = (_select(rows, index) for index in hold_out(groups, test_fraction, seed))
    fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
    note = f", {fraction:g} of each writer's rows held out as the test split"
    return kept, held, note, _derived(entry.fingerprint, [fraction, seed])


def _select(rows: Split, index: npt.NDArray[np.int64]) -> Split:
    return Split(rows.inputs[index], rows.labels[index], None if rows.owners is None else rows.owners[index])


def _derived(digest: str, parameters: object) -> str:
    return hashlib.sha256(json.dumps([digest, parameters]).encode()).hexdigest()
