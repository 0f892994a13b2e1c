"""Data sets in the folders that torchvision's data set classes use."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fedbench.data.image_source import ImageSource, ImageSplits
from fedbench.data.parquet import ImageRows
from fedbench.errors import DataError


def torchvision_class(name: str) -> Any:
    """The class `torchvision.datasets.NAME`. torchvision is imported here because it costs a second and 160 MB."""
    return getattr(importlib.import_module("torchvision.datasets"), name)


def torchvision_folder(root: Path, name: str) -> Path:
    """The folder under `root` in which torchvision's class keeps its files."""
    return root / {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}.get(name, f"{name}/raw")


def torchvision_source(root: Path, name: str, dataset: Any = None) -> ImageSource | None:
    """torchvision's files of a data set under `root`; None where there are none.

    Args:
        root: the folder that torchvision calls root.
        name: CIFAR10 | CIFAR100 | MNIST | FashionMNIST.
        dataset: the class to read with; None: torchvision's, which checks the files of CIFAR against their MD5.
    """
    folder = torchvision_folder(root, name)
    if not folder.is_dir():
        return None
    relative = folder.relative_to(root)

    def read() -> ImageSplits:
        reader = dataset or torchvision_class(name)
        return ImageSplits(_read(reader, root, folder, train=True), _read(reader, root, folder, train=False))

    files = tuple(sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".gz"))
    layout = {"format": "torchvision", "class": name, "files": [file.name for file in files]}
    return ImageSource(f"torchvision's files in {relative.as_posix()}/", files, read, layout)


def _read(dataset: Any, root: Path, folder: Path, *, train: bool) -> ImageRows:
    try:
        rows = dataset(root, train=train, download=False)
    except (RuntimeError, OSError, ValueError, KeyError, AssertionError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()).removesuffix(" You can use download=True to download it")
        raise DataError(
            f"{folder}: torchvision cannot read it ({reason or type(error).__name__}); remove it and get it again"
        ) from error
    images, labels = np.asarray(rows.data), np.asarray(rows.targets, dtype=np.int64)
    if len(images) != len(labels) or len(labels) == 0:
        raise DataError(f"{folder}: {len(images)} images and {len(labels)} labels; remove the folder and get it again")
    if images.ndim == 3:
        images = images[..., None]
    return ImageRows(np.ascontiguousarray(images, dtype=np.uint8), labels, None, None)
