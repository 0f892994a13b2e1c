"""Where Parquet files are looked for: the layouts of hubs are found, and nothing lost, doubled or foreign is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.images import Cifar10
from fedbench.data.parquet_files import find_splits, refuse_copies
from fedbench.errors import DataError


def place(folder: Path, *names: str) -> Path:
    """Makes a folder with empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
        ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
        ("data/train/0.parquet", "data/train/1.parquet", "data/test/0.parquet"),
        ("train/train-00000-of-00002.parquet", "train/train-00001-of-00002.parquet", "test/any.parquet"),
        ("train/part-00000-1f.snappy.parquet", "train/part-00003-1f.snappy.parquet", "test/part-00000-1f.parquet"),
        (
            "default/mnist-train-00000-of-00002.parquet",
            "default/mnist-train-00001-of-00002.parquet",
            "default/mnist-test.parquet",
        ),
        ("train_00000_of_00002.parquet", "train_00001_of_00002.parquet", "Test.parquet"),
        ("data/training-a.parquet", "data/training-b.parquet", "data/test.parquet"),
    ],
)
def test_the_layouts_of_hubs_and_libraries_are_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    hidden = [str(Path(name).parent / f"._{Path(name).name}") for name in names]
    place(tmp_path, *names, *hidden, ".cache/train.parquet", "README.md", "_metadata.parquet")
    splits = {
        split: [str(file.relative_to(tmp_path)) for file in files] for split, files in find_splits(tmp_path).items()
    }
    assert splits == {"train": list(names[:2]), "test": [names[2]]}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        # A shard that is missing, while a copy of another makes the number of files right.
        (("train-00000-of-00002.parquet", "train-00000-of-00002 (1).parquet"), ("has the number of", "move")),
        (("train-00000-of-00002-0a.parquet", "train-00000-of-00002-0b.parquet"), ("has the number of", "move")),
        (("train-00000-of-00002.parquet", "train-copy.parquet"), ("train-copy.parquet", "stands beside numbered")),
        (("train-00000-of-00002.parquet", "train-00000-of-00001.parquet"), ("stands beside numbered",)),
        (("train-00001-of-00002.parquet", "train-00002-of-00002.parquet"), ("number 0 is missing",)),
        (("train.parquet", "train (1).parquet"), ("holds a whole split", "move one away")),
        (("train/0000.parquet", "train/0002.parquet"), ("number 1 is missing",)),
        (("train/0001.parquet",), ("number 0 is missing",)),
        (("train.parquet", "train/0000.parquet"), ("there twice",)),
        (("train/test.parquet",), ("another split than its folder",)),
        (("default/partial-train/0000.parquet",), ("only the beginning",)),
    ],
)
def test_what_is_lost_or_foreign_is_named(tmp_path: Path, names: tuple[str, ...], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        find_splits(place(tmp_path, *names))
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path, make_cifar10: Callable) -> None:
    make_cifar10(tmp_path)
    train = tmp_path / "cifar10" / "train-00000-of-00001.parquet"
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").write_bytes(train.read_bytes())
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet: the same content as .*train-00000"):
        Cifar10().load(tmp_path, test_fraction=None, seed=0)


def test_shards_without_rows_may_be_equal(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.parquet" for number in range(2)]
    for file in files:
        pq.write_table(pa.table({"label": pa.array([], pa.int64())}), file)
    refuse_copies(files)


def test_images_beside_the_splits_are_named(tmp_path: Path, make_cifar10: Callable) -> None:
    make_cifar10(tmp_path)
    folder = tmp_path / "cifar10"
    (folder / "more.parquet").write_bytes(b"not read")
    data = Cifar10().load(tmp_path, test_fraction=None, seed=0)
    assert data.remarks == ("not read, since no split that is used has such a name: more.parquet",)


def test_what_lies_there_instead_is_told(tmp_path: Path) -> None:
    place(tmp_path / "cifar10", "data-00000-of-00001.arrow", "state.json")
    with pytest.raises(DataError, match=r"cifar10 has 2 files, none of them Parquet \(data-00000-of-00001\.arrow"):
        Cifar10().check(tmp_path)
    place(tmp_path / "cifar10", "0000.parquet")
    with pytest.raises(DataError, match=r"1 Parquet file that no split is known by \(0000\.parquet\)"):
        Cifar10().check(tmp_path)


def test_test_rows_that_are_training_rows_are_counted(tmp_path: Path, make_cifar10: Callable) -> None:
    make_cifar10(tmp_path)  # the test split holds the first ten training rows
    data = Cifar10().load(tmp_path, test_fraction=None, seed=0)
    assert data.test_rows_in_train == 10
    assert np.array_equal(data.train.inputs[:10], data.test.inputs)
