"""A data set of images on disk, in whatever form: its files, and how they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedbench.data.decode import ImageKind
from fedbench.data.parquet import ImageRows, read_images
from fedbench.data.parquet_files import SplitFiles, find_splits, refuse_copies, unread_beside
from fedbench.errors import DataError


@dataclass(frozen=True)
class ImageSplits:
    """The splits of a data set of images, as they were read; None for one that is not there."""

    train: ImageRows
    test: ImageRows | None
    validation: ImageRows | None = None

    @property
    def by_name(self) -> dict[str, ImageRows]:
        """The splits that are there."""
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: rows for name, rows in splits.items() if rows is not None}


@dataclass(frozen=True)
class ImageSource:
    """Images on disk that are not read yet.

    Attributes:
        description: where they are, in words for reports, with paths relative to `data.root`.
        files: all files that are read, in a fixed order.
        read: called to read the splits.
        layout: which file belongs to which split and class, and what else the result depends on beside the contents of
            the files; plain JSON values.
        remarks: as in `FederatedData`.
    """

    description: str
    files: tuple[Path, ...]
    read: Callable[[], ImageSplits]
    layout: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def parquet_source(
    folders: Sequence[Path],
    kind: ImageKind,
    *,
    label_columns: Sequence[str],
    test_splits: Sequence[str],
    test_required: bool,
    class_names: Sequence[str] | None = None,
    owner_column: str | None = None,
) -> ImageSource | None:
    """The Parquet files of the first folder that has any, in the Hugging Face layout; None where no folder has any.

    Args:
        folders: the folders to look in.
        kind: the format that every image must have.
        label_columns: names that the column of the labels may have.
        test_splits: the splits that may serve as the test split, the preferred one first.
        test_required: whether it is an error if there is none of them.
        class_names: the names of the classes in label order, where they are known beforehand.
        owner_column: the column with each row's natural client.

    Raises:
        DataError: a split is missing, or not all of its files are there, or one of them twice.
    """
    folder, splits = next(((folder, splits) for folder in folders if (splits := find_splits(folder))), (None, {}))
    if folder is None:
        return None
    train, test, chosen = _choose(folder, splits, test_splits, test_required)
    validation = splits.get("validation", ()) if chosen == "test" else ()
    refuse_copies((*train, *test, *validation))

    def read() -> ImageSplits:
        def split(files: Sequence[Path], names: Sequence[str] | None) -> ImageRows:
            return read_images(
                files,
                kind,
                label_columns=label_columns,
                classes=len(class_names) if class_names else None,
                class_names=names,
                owner_column=owner_column,
            )

        trained = split(train, class_names)
        names = class_names or trained.class_names
        others = [split(files, names) if files else None for files in (test, validation)]
        return ImageSplits(trained, *others)

    note = f", {chosen} as the test split" if chosen not in ("test", None) else ""
    description = f"Parquet in {folder.name}/{note}"
    layout = {"format": "parquet", "train": len(train), "test": len(test)}
    if validation:
        layout["validation"] = len(validation)
    files = (*train, *test, *validation)
    return ImageSource(description, files, read, layout, unread_beside(files))


def _choose(
    folder: Path, splits: SplitFiles, test_splits: Sequence[str], test_required: bool
) -> tuple[tuple[Path, ...], tuple[Path, ...], str | None]:
    """The files of the training split, those of the test split, and the name of the split that serves as the latter."""
    there = ", ".join(sorted(splits))
    if "train" not in splits:
        raise DataError(f"{folder}: no train split, found only {there}; put train-00000-of-00001.parquet there too")
    chosen = next((split for split in test_splits if split in splits), None)
    if chosen is None and test_required:
        raise DataError(
            f"{folder}: no {' or '.join(test_splits)} split, found {there}; put test-00000-of-00001.parquet there too"
        )
    return splits["train"], splits[chosen] if chosen else (), chosen
