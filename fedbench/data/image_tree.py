"""Images as single files in a folder per class, and the original tree of Tiny-ImageNet."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedbench.data.decode import ImageKind, decode_images
from fedbench.data.image_source import ImageSource
from fedbench.data.parquet import ImageRows
from fedbench.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TEST_FOLDERS = ("test", "val", "validation")
ANNOTATIONS = "val_annotations.txt"

Labelled = list[tuple[Path, int]]


def tree_source(folder: Path, kind: ImageKind) -> ImageSource | None:
    """A tree `train/CLASS/**` with `test/CLASS/**` or `val/CLASS/**` beside it; None where `folder` is not one.

    Classes are the folders under `train`, in alphabetical order. In the original tree of Tiny-ImageNet the images of
    `val` lie together, their classes in `val/val_annotations.txt`; they serve as the test split, because the images of
    its `test` have no labels.

    Raises:
        DataError: no test split, no images, or a class that training does not have.
    """
    names = _class_folders(folder / "train")
    if not names:
        return None
    train = _images_by_class(folder / "train", names)
    annotations = folder / "val" / ANNOTATIONS
    test, chosen = (_annotated(annotations, names), "val") if annotations.is_file() else _test_images(folder, names)
    listing = "\n".join(f"{path.relative_to(folder)}\t{label}" for path, label in (*train, *test))
    layout = {
        "format": "tree",
        "train": len(train),
        "classes": names,
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
    }

    def read() -> tuple[ImageRows, ImageRows | None]:
        return _read(train, kind, names), _read(test, kind, names)

    files = tuple(path for path, _ in (*train, *test))
    return ImageSource(f"image files in {folder.name}/, {chosen} as the test split", files, read, layout)


def _class_folders(folder: Path) -> list[str]:
    return sorted(sub.name for sub in folder.iterdir() if sub.is_dir()) if folder.is_dir() else []


def _test_images(folder: Path, names: Sequence[str]) -> tuple[Labelled, str]:
    for candidate in TEST_FOLDERS:
        test_names = _class_folders(folder / candidate)
        # Tiny-ImageNet's test images lie in a single folder "images", without labels.
        if not test_names or (test_names == ["images"] and "images" not in names):
            continue
        unknown = sorted(set(test_names) - set(names))
        if unknown:
            raise DataError(f"{folder / candidate / unknown[0]}: no such class in train; remove it or add it there")
        return _images_by_class(folder / candidate, names), candidate
    looked = ", ".join(str(folder / name) for name in TEST_FOLDERS)
    raise DataError(f"{folder}: train without a test split, looked for a folder per class in {looked}; add one of them")


def _images_by_class(folder: Path, names: Sequence[str]) -> Labelled:
    images = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not images:
        raise DataError(f"{folder}: no image files in its class folders, expected {', '.join(sorted(SUFFIXES))}")
    return images


def _annotated(annotations: Path, names: Sequence[str]) -> Labelled:
    """The validation images of Tiny-ImageNet, from lines of file name, class and bounding box, separated by tabs."""
    index = {name: label for label, name in enumerate(names)}
    images = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wanted = rest.split("\t")[0]
        if wanted not in index:
            raise DataError(
                f"{annotations}, line {number}: class {wanted!r} has no folder in train; correct or drop it"
            )
        path = annotations.parent / "images" / name
        if not path.is_file():
            raise DataError(f"{annotations}, line {number}: no file {path}; get the data set again")
        images.append((path, index[wanted]))
    if not images:
        raise DataError(f"{annotations}: no lines, expected one per image; get the data set again")
    return images


def _read(images: Labelled, kind: ImageKind, names: Sequence[str]) -> ImageRows:
    def encoded() -> Iterator[tuple[str, bytes | None]]:
        for path, _ in images:
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error

    pixels = decode_images(encoded(), len(images), kind)
    labels = np.array([label for _, label in images], dtype=np.int64)
    return ImageRows(pixels, labels, None, tuple(names))
