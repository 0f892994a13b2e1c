"""Columns as Polars, pandas and hubs write them: read by their values, or refused with file, row and reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.decode import ImageKind
from fedbench.data.images import Cifar100
from fedbench.data.parquet import read_images, read_texts
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.errors import DataError

TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
INTEGER = [pa.int8(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())]


def array(values: list, kind: pa.DataType) -> pa.Array:
    return pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)


@pytest.mark.parametrize("kind", TEXT, ids=str)
def test_every_form_of_a_text_column_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    texts = ["a dog", "naïve café", "a dog", ""]
    pq.write_table(pa.table({"text": array(texts, kind), "label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    assert read_texts([tmp_path / "train.parquet"], label_columns=("label",)).texts == texts


@pytest.mark.parametrize("kind", INTEGER, ids=str)
def test_every_form_of_a_label_column_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    labels = [2, 0, 1, 1, 2]
    pq.write_table(pa.table({"text": list("abcde"), "label": array(labels, kind)}), tmp_path / "train.parquet")
    assert read_texts([tmp_path / "train.parquet"], label_columns=("label",)).labels.tolist() == labels


@pytest.mark.parametrize(
    "kind", [pa.large_binary(), pa.binary_view(), pa.struct([("bytes", pa.binary_view())])], ids=str
)
def test_every_form_of_an_image_column_is_read(
    tmp_path: Path, kind: pa.DataType, random_images: Callable[..., np.ndarray], image_bytes: Callable[..., bytes]
) -> None:
    images = random_images(2, 4)
    encoded = [image_bytes(image) for image in images]
    values = [{"bytes": data} for data in encoded] if pa.types.is_struct(kind) else encoded
    pq.write_table(pa.table({"image": pa.array(values, kind), "label": [0, 1]}), tmp_path / "train.parquet")
    rows = read_images([tmp_path / "train.parquet"], ImageKind(channels=3), label_columns=("label",))
    np.testing.assert_array_equal(rows.images, images)


@pytest.mark.parametrize("kind", TEXT, ids=str)
def test_text_that_is_not_utf8_is_named_with_file_and_row(tmp_path: Path, kind: pa.DataType) -> None:
    raw = pa.array([b"fine", b"caf\xe9", b"fine"], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    column = bad.dictionary_encode() if pa.types.is_dictionary(kind) else bad.cast(kind)
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": column, "label": [0, 1, 0], "writer": column}), file)
    with pytest.raises(DataError, match=rf"{file}, row 1: column 'text' is not UTF-8 \(byte 3: 0xe9\)"):
        read_texts([file], label_columns=("label",))


def write_images(
    root: Path, image_bytes: Callable[..., bytes], train: list, test: list, kind: pa.DataType | None = None
) -> Path:
    """Own images in ROOT/mine, 4x4 grey, each of another grey, with the labels `train` and `test`."""
    (root / "mine").mkdir(exist_ok=True)
    for split, labels, first in (("train", train, 0), ("test", test, 100)):
        encoded = [image_bytes(np.full((4, 4, 1), first + row, np.uint8)) for row in range(len(labels))]
        column = pa.array(labels) if kind is None else array(labels, kind)
        pq.write_table(pa.table({"image": encoded, "label": column}), root / "mine" / f"{split}.parquet")
    return root


def load(root: Path) -> FederatedData:
    return ParquetImages(folder="mine").load(root, test_fraction=None, seed=0)


@pytest.mark.parametrize("kind", TEXT, ids=str)
def test_labels_that_are_names_are_the_same_classes_in_both_splits(
    tmp_path: Path, image_bytes: Callable[..., bytes], kind: pa.DataType
) -> None:
    data = load(write_images(tmp_path, image_bytes, ["moss", "fern", "lichen", "fern"], ["moss", "fern"], kind))
    assert data.class_names == ("fern", "lichen", "moss")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([2, 0, 1, 0], [2, 0])
    with pytest.raises(DataError, match=r"test\.parquet, row 1: column 'label': label 'yew', expected one of the 3"):
        load(write_images(tmp_path, image_bytes, ["moss", "fern", "lichen"], ["moss", "yew"], kind))


@pytest.mark.parametrize(
    ("labels", "missing"), [([1, 2], "labels 1..2, none of them 0"), ([0, 2, 3], "labels 0..3, none of them 1")]
)
def test_a_class_without_rows_is_not_made_up(
    tmp_path: Path, image_bytes: Callable[..., bytes], labels: list, missing: str
) -> None:
    with pytest.raises(DataError, match=f"{missing}; number the classes from 0 without gaps, or name them"):
        load(write_images(tmp_path, image_bytes, labels, labels))


def test_a_single_class_is_refused(tmp_path: Path, image_bytes: Callable[..., bytes]) -> None:
    with pytest.raises(DataError, match=r"a single class \(0\), expected at least 2"):
        load(write_images(tmp_path, image_bytes, [0, 0, 0], [0, 0]))


def test_a_name_that_two_columns_have_is_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array([0]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "label", "label"]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: 2 columns are named 'label'; keep one of them"):
        read_texts([tmp_path / "train.parquet"], label_columns=("label",))


def test_superclasses_are_refused_where_the_classes_have_other_names(
    tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    names = [f"class {label}" for label in range(100)]
    for split in ("train", "test"):
        images = random_images(100, seed=len(split))
        write_parquet(tmp_path / "cifar100" / f"{split}.parquet", images, np.arange(100), names)
    assert Cifar100().load(tmp_path, test_fraction=None, seed=0).classes == 100
    with pytest.raises(DataError, match="not named as published, so that their superclasses are not known"):
        Cifar100(labels="coarse").load(tmp_path, test_fraction=None, seed=0)
