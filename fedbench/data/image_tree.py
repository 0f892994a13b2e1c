"""Images as single files in a folder per class, and the original tree of Tiny-ImageNet."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fedbench.data.decode import ImageKind, decode_images
from fedbench.data.image_source import ImageSource, ImageSplits
from fedbench.data.parquet import ImageRows
from fedbench.errors import DataError

SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes of the files that are read as images. Files with other suffixes are left alone, but for `FOREIGN`."""

FOREIGN = frozenset(
    {
        *(".arw", ".cr2", ".dcm", ".dng", ".heic", ".heif", ".jxl", ".mat", ".nef"),
        *(".nii", ".npy", ".npz", ".pt", ".psd", ".svg"),
    }
)
"""Suffixes of the files that hold images which are not read, and are refused."""

TEST_FOLDERS = ("test", "val", "validation", "valid")
ANNOTATIONS = "val_annotations.txt"

Labelled = list[tuple[Path, int]]


def tree_source(folder: Path, kind: ImageKind) -> ImageSource | None:
    """A tree `train/CLASS/**` with `test/CLASS/**` or `val/CLASS/**` beside it; None where `folder` is not one.

    Where both are there, `val` is the validation split.

    Classes are the folders under `train`, in alphabetical order. Files and folders whose names begin with a dot, such
    as Jupyter's copies in `.ipynb_checkpoints`, are left alone. In the original tree of Tiny-ImageNet the images of
    `val` lie together, their classes in `val/val_annotations.txt`; they serve as the test split, because the images of
    its `test` have no labels.

    Raises:
        DataError: no test split, a class without training images or one that training does not have, an image outside
            the class folders, or an image file of a form that cannot be read.
    """
    names = class_folders(folder / "train")
    if not names:
        return None
    train = _images_by_class(folder / "train", names)
    if empty := sorted(set(range(len(names))) - {label for _, label in train}):
        raise DataError(
            f"{folder / 'train' / names[empty[0]]}: no image files in this class folder, expected"
            f" {', '.join(sorted(SUFFIXES))}; fill the folder, or remove it"
        )
    annotations = folder / "val" / ANNOTATIONS
    scored = {"val": _annotated(annotations, names)} if annotations.is_file() else _scored_images(folder, names)
    (chosen, test), *others = scored.items()
    validation = others[0][1] if others and chosen == "test" else []
    images = (*train, *test, *validation)
    listing = "\n".join(f"{path.relative_to(folder)}\t{label}" for path, label in images)
    layout = {
        "format": "tree",
        "train": len(train),
        "classes": names,
        "listing": hashlib.sha256(listing.encode()).hexdigest(),
    }

    def read() -> ImageSplits:
        validated = _read(validation, kind, names) if validation else None
        return ImageSplits(_read(train, kind, names), _read(test, kind, names), validated)

    files = tuple(path for path, _ in images)
    note = f"{chosen} as the test split" + (f", {others[0][0]} for validation" if validation else "")
    return ImageSource(f"image files in {folder.name}/, {note}", files, read, layout)


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, in alphabetical order, without hidden ones; none where it is not there."""
    return sorted(sub.name for sub in _visible(folder) if sub.is_dir()) if folder.is_dir() else []


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def _scored_images(folder: Path, names: Sequence[str]) -> dict[str, Labelled]:
    """{folder: its images} of the folders beside `train` that have a folder per class, the test split first."""
    scored: dict[str, Labelled] = {}
    for candidate in TEST_FOLDERS:
        test_names = class_folders(folder / candidate)
        # Tiny-ImageNet's test images lie in a single folder "images", without labels.
        if not test_names or (test_names == ["images"] and "images" not in names):
            continue
        unknown = sorted(set(test_names) - set(names))
        if unknown:
            raise DataError(f"{folder / candidate / unknown[0]}: no such class in train; remove it or add it there")
        scored[candidate] = _images_by_class(folder / candidate, names)
        if not scored[candidate]:
            raise DataError(
                f"{folder / candidate}: no image files in its class folders; fill them, or remove the folder"
            )
    if scored:
        return scored
    looked = ", ".join(str(folder / name) for name in TEST_FOLDERS)
    raise DataError(f"{folder}: train without a test split, looked for a folder per class in {looked}; add one of them")


def _images_by_class(folder: Path, names: Sequence[str]) -> Labelled:
    """The images in each class's folder and the folders below it."""
    if outside := [path for path in _visible(folder) if path.is_file() and _is_image(path)]:
        raise DataError(
            f"{outside[0]}: lies in none of the class folders of {folder}; move it to its class, or remove it"
        )
    return [(path, label) for label, name in enumerate(names) for path in sorted(_images_below(folder / name))]


def _images_below(folder: Path) -> Iterator[Path]:
    for path in _visible(folder) if folder.is_dir() else ():
        if path.is_dir():
            yield from _images_below(path)
        elif _is_image(path):
            yield path


def _is_image(path: Path) -> bool:
    """Whether a file is read as an image, by its suffix.

    Raises:
        DataError: it holds images in a form that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in FOREIGN:
        raise DataError(f"{path}: {suffix} files cannot be read as images; convert it to PNG or JPEG, or remove it")
    return suffix in SUFFIXES


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
