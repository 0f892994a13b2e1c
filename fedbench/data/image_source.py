"""A place where a data set of images was found: what it is, its files, and how they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedbench.data.decode import ImageKind
from fedbench.data.parquet import ImageRows, SplitFiles, find_splits, read_images
from fedbench.errors import DataError


@dataclass(frozen=True)
class ImageSource:
    """Images on disk, found but not read yet.

    Attributes:
        description: in words, for reports, with paths relative to `data.root`.
        files: everything that is read, in a fixed order.
        read: gives the training split and the test split (None where the source has none).
        layout: what the files' contents do not say and the result depends on: which file belongs to which split and
            class; plain JSON values.
    """

    description: str
    files: tuple[Path, ...]
    read: Callable[[], tuple[ImageRows, ImageRows | None]]
    layout: Mapping[str, Any] = field(default_factory=dict)


def parquet_source(
    folders: Sequence[Path],
    kind: ImageKind,
    *,
    label_columns: Sequence[str],
    test_splits: Sequence[str],
    test_required: bool,
    classes: int | None = None,
    owner_column: str | None = None,
) -> ImageSource | None:
    """The Parquet files in the first of `folders` that has any, in the Hugging Face layout; None where none has.

    Args:
        test_splits: the splits that may serve as the test split, the preferred one first.
        test_required: whether a source without any of them is an error.

    Raises:
        DataError: a split is missing, or not all of its files are there.
    """
    folder, splits = next(((folder, splits) for folder in folders if (splits := find_splits(folder))), (None, {}))
    if folder is None:
        return None
    train, test, chosen = _choose(folder, splits, test_splits, test_required)

    def read() -> tuple[ImageRows, ImageRows | None]:
        def split(files: Sequence[Path]) -> ImageRows:
            return read_images(files, kind, label_columns=label_columns, classes=classes, owner_column=owner_column)

        return split(train), split(test) if test else None

    note = f", {chosen} as the test split" if chosen not in ("test", None) else ""
    description = f"Parquet in {folder.name}/{note}"
    layout = {"format": "parquet", "train": len(train), "test": len(test)}
    return ImageSource(description, (*train, *test), read, layout)


def _choose(
    folder: Path, splits: SplitFiles, test_splits: Sequence[str], test_required: bool
) -> tuple[tuple[Path, ...], tuple[Path, ...], str | None]:
    there = ", ".join(sorted(splits))
    if "train" not in splits:
        raise DataError(f"{folder}: no train split, found only {there}; put train-00000-of-00001.parquet there too")
    chosen = next((split for split in test_splits if split in splits), None)
    if chosen is None and test_required:
        raise DataError(
            f"{folder}: no {' or '.join(test_splits)} split, found {there}; put test-00000-of-00001.parquet there too"
        )
    return splits["train"], splits[chosen] if chosen else (), chosen
