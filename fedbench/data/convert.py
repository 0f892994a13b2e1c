"""Making a data set ready: checking what is there, converting it to Parquet, downloading it through torchvision."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbench.components.catalogue import BUILTIN, built_in_name, make_component
from fedbench.components.suggestions import did_you_mean
from fedbench.data.base import Dataset
from fedbench.data.column_dataset import ColumnDataset
from fedbench.data.contract import check_data, remarks_on
from fedbench.data.image_dataset import ImageDataset
from fedbench.data.image_source import ImageSource
from fedbench.data.image_tree import tree_source
from fedbench.data.parquet_files import describe_content, find_splits
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.data.torchvision_root import torchvision_class, torchvision_folder, torchvision_source
from fedbench.errors import ConfigError, DataError
from fedbench.randomness import global_generators_seeded, torch_seed
from fedbench.tasks.kinds import TaskName


@dataclass(frozen=True)
class DataReport:
    """Facts about a data set after all its rows were checked.

    Attributes:
        name: the data set's name.
        source: where its rows come from, in words.
        rows: number of rows per split, {"train": ..., "test": ..., "validation": ... where there is one}.
        task: what is learned of them.
        class_names: as in `FederatedData`.
        shape: the shape of one row: (H, W, C) of an image, (L,) of a text, that of an array.
        bytes: size of its files on disk; 0 for data that come with a library.
        files: number of its files on disk.
        fingerprint: hex digest of the content.
        written: whether Parquet files were written for it just now.
        remarks: what a user should know of the data, one line each.
        overrides: what to type behind `fedbench run PRESET` to train on it.
    """

    name: str
    source: str
    rows: dict[str, int]
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int
    files: int
    fingerprint: str
    written: bool = False
    task: TaskName = "classification"
    remarks: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


PLAIN = r"[A-Za-z_/][\w./:-]*(?<!:)"
"""Texts that YAML takes for texts without quotes, unless they are among the next."""

NOT_TEXTS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def with_parameters(name: str, parameters: Mapping[str, Any]) -> Dataset:
    """A data set by its name and its parameters, as `data.dataset` has them.

    Raises:
        ConfigError: an unknown name, or an unknown or impossible parameter.
    """
    component = make_component("dataset", Dataset, {"name": name, **parameters})
    assert isinstance(component, Dataset)
    return component


def describe(dataset: str | Dataset, root: Path | None, *, written: bool = False) -> DataReport:
    """Load a data set, check every row, and report on it.

    Args:
        dataset: a built-in name, "package.module:Class", the name of a folder of image Parquet under `root`, or a
            component.
        root: `data.root`; None for data that comes with a library.

    Raises:
        ConfigError, DataError: as `Dataset.load`.
    """
    component = dataset if isinstance(dataset, Dataset) else _component(dataset, root)
    with global_generators_seeded(torch_seed(0, "data")):
        loaded = component.load(root, test_fraction=None, seed=0)
    data = check_data(component, loaded)
    files = _files(component, root)
    return DataReport(
        name=data.name,
        source=data.source,
        rows={"train": len(data.train)} | {str(split): count for split, count in data.scored_rows.items()},
        class_names=data.class_names,
        shape=data.input_shape,
        bytes=sum(file.stat().st_size for file in files),
        files=len(files),
        fingerprint=data.fingerprint,
        written=written,
        task=data.task,
        remarks=remarks_on(data),
        overrides=_overrides(component, root),
    )


def fetch_or_convert(dataset_name: str, root: Path, source: Path | None = None) -> DataReport:
    """Make a data set ready under `root` as Parquet, and report on it.

    Parquet files that are there already are checked. Without any, `source` is converted, or else what lies under `root`
    in another form. Where there is nothing to convert, the data set is downloaded through torchvision first. Nothing
    half-made is left behind.

    Args:
        dataset_name: a built-in name; with `source` any other name, too, which becomes a folder under `root` that
            `data.dataset=images data.dataset.folder=NAME` loads.
        root: the folder to fill; made where it is missing.
        source: a torchvision root, the original tree of Tiny-ImageNet, or any tree train/CLASS/* with test/CLASS/* or
            val/CLASS/*.

    Raises:
        ConfigError: an unknown name, or a `source` without effect.
        DataError: nothing to convert, damaged data, or no way to download it.
    """
    if source is not None and not source.is_dir():
        raise DataError(f"--source {source}: no such folder")
    component = _component(dataset_name, root, new=source is not None)
    if not isinstance(component, ImageDataset):
        if source is not None:
            raise ConfigError(f"--source {source}: has no effect with {dataset_name}, which is not made from images")
        return describe(component, root)
    with _folder(root):
        return _made_ready(dataset_name, component, root, source)


@contextmanager
def _folder(root: Path) -> Iterator[None]:
    """Make a folder, and remove it again if an error leaves it empty."""
    new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made ({error.strerror}); choose another --root") from error
    try:
        yield
    except BaseException:
        if new and not any(root.iterdir()):
            root.rmdir()
        raise


def _made_ready(dataset_name: str, component: ImageDataset, root: Path, source: Path | None) -> DataReport:
    if component.find_parquet(root) is not None:
        if source is not None:
            raise ConfigError(
                f"--source {source}: has no effect, {root / component.folders[0]} has Parquet; remove that first"
            )
        return describe(component, root)
    if source is None and isinstance(component, ParquetImages):
        return describe(component, root)  # a tree of one's own is read where it is
    if component.owner_column is not None:
        raise DataError(
            f"{dataset_name}: cannot be made from images, whose writers are not known; place"
            f" {root / component.folders[0]}/train-*.parquet with the columns image, {component.owner_column} and"
            f" {component.label_columns[0]} (the Hugging Face layout)"
        )
    images = component.find_other(root) if source is None else _find_in(component, source)
    if images is not None:
        _write(component, images, root)
    else:
        with _downloaded(component, root) as downloaded:
            _write(component, downloaded, root)
    return describe(component, root, written=True)


def _component(name: str, root: Path | None, *, new: bool = False) -> Dataset:
    """The data set of a name: built in, imported, or a folder of images, which need not be there if `new`."""
    built_in = built_in_name("dataset", name)
    plain = Path(name).name == name and not name.startswith(".")
    own = ParquetImages(folder=name) if plain else None
    if own is not None and built_in == own.name:
        return own
    if built_in in BUILTIN["dataset"] or ":" in name:
        component = make_component("dataset", Dataset, built_in)
        assert isinstance(component, Dataset)
        return component
    if own is not None and (new or (root is not None and (own.find_parquet(root) or own.find_other(root)))):
        return own
    there = "" if own is None or root is None else describe_content(root / name)
    raise ConfigError(
        f"{name}: no such data set{did_you_mean(name, BUILTIN['dataset'])} (or a folder under --root with train and"
        f" test, as Parquet or as CLASS/* images{f'; {there}' if there else ''})"
    )


def _overrides(component: Dataset, root: Path | None) -> tuple[str, ...]:
    """What to type to run on a data set: its name, its parameters that are not at their defaults, and the root."""
    fields = component.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    values = [f"data.dataset={component.name}"]
    values += [f"data.dataset.{key}={flow_value(value)}" for key, value in fields.items()]
    return (*values, *([f"data.root={root}"] if root is not None else []))


def flow_value(value: object) -> str:
    """A parameter as one writes it on the command line: YAML in one line, with quotes only where it needs them.

    >>> flow_value(["age", "blood pressure", "no"]), flow_value("price"), flow_value("7")
    ('[age, "blood pressure", "no"]', 'price', '"7"')
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow_value, value))}]"
    if isinstance(value, str) and re.fullmatch(PLAIN, value) and value.lower() not in NOT_TEXTS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _files(component: Dataset, root: Path | None) -> tuple[Path, ...]:
    if isinstance(component, ImageDataset):
        return component.locate(root).files
    if isinstance(component, ColumnDataset):
        return component.locate(root, test_fraction=None).files
    folders: tuple[str, ...] = getattr(component, "folders", ())
    if root is None:
        return ()
    candidates = (find_splits(root / name) for name in folders)
    splits: dict[str, Any] = next((splits for splits in candidates if splits), {})
    return tuple(file for files in splits.values() for file in files)


def _find_in(component: ImageDataset, source: Path) -> ImageSource:
    """The images that `--source` holds: torchvision's files, or a tree of images in it or one folder below.

    Raises:
        DataError: it holds neither.
    """
    name = component.torchvision_name
    if name is not None:
        # `source` may be the folder that torchvision calls root, or one of the folders below it.
        for root in (source, source.parent, source.parent.parent):
            folder = torchvision_folder(root, name)
            images = torchvision_source(root, name) if source in (root, folder, *folder.parents) else None
            if images is not None:
                return images
    for folder in (source, *(source / name for name in component.tree_folders)):
        tree = tree_source(folder, component.kind)
        if tree is not None:
            return tree
    wanted = f"torchvision's files of {name}, or " if name else ""
    raise DataError(f"--source {source}: expected {wanted}a tree train/CLASS/* with test/CLASS/* or val/CLASS/*")


def _write(component: ImageDataset, source: ImageSource, root: Path) -> None:
    """Read a source and write its splits; their files appear together, when all are complete."""
    splits, names = component.read(source)
    assert splits.test is not None, "every source but Parquet has a test split"
    folder = root / component.folders[0]
    folder_is_new = not folder.exists()
    placed: list[Path] = []
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=root) as temporary:
            files = []
            for split, rows in splits.by_name.items():
                files.append(Path(temporary) / f"{split}-00000-of-00001.parquet")
                write_parquet(files[-1], rows.images, rows.labels, names, label_column=component.label_columns[0])
            folder.mkdir(exist_ok=True)
            for file in files:
                placed.append(file.replace(folder / file.name))
    except BaseException as error:
        for path in placed:
            path.unlink(missing_ok=True)
        if folder_is_new and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"{folder}: cannot be written ({error.strerror or error}); check its space") from error
        raise


@contextmanager
def _downloaded(component: ImageDataset, root: Path) -> Iterator[ImageSource]:
    """torchvision's files of a data set, downloaded to a temporary folder under `root`."""
    name = component.torchvision_name
    folder = root / component.folders[0]
    place = f"place {folder}/train-00000-of-00001.parquet and test-00000-of-00001.parquet (the Hugging Face layout)"
    if name is None:
        there = "".join(
            f" ({text})" for text in map(describe_content, (root / name for name in component.folders)) if text
        )
        advice = component.advice.replace("DIR", str(root))
        raise DataError(f"{component.name}: not found under {root}{there}, and has no download; {advice}")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root, ignore_cleanup_errors=True) as temporary:
        try:
            torchvision_class(name)(temporary, download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(
                f"{component.name}: cannot be downloaded ({reason}); {place}, or torchvision's {name} files at {root}"
            ) from error
        source = torchvision_source(Path(temporary), name)
        if source is None:
            raise DataError(f"{component.name}: the download left no files; {place}")
        yield source
