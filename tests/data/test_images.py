"""The image data sets: found in every form that they come in, and refused where they are not what they should be."""

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fedbench.data.image_dataset as dataset_module
from fedbench.components.catalogue import BUILTIN, component_class, make_component
from fedbench.data.base import Dataset
from fedbench.data.cifar100_superclasses import FINE_NAMES, SUPERCLASSES, coarse_labels
from fedbench.data.images import Cifar10, Cifar100, FashionMnist, Mnist, TinyImageNet
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.data.torchvision_root import torchvision_source
from fedbench.errors import ConfigError, DataError

WITH_A_FOLDER = [name for name in BUILTIN["dataset"] if hasattr(component_class("dataset", name), "folders")]
"""The built-in data sets that are looked for in a folder of data.root."""

RandomImages = Callable[..., np.ndarray]


def load(dataset: Dataset, root: Path | None, test_fraction: float | None = None, seed: int = 0) -> Any:
    return dataset.load(root, test_fraction=test_fraction, seed=seed)


@pytest.mark.parametrize("name", WITH_A_FOLDER)
def test_every_built_in_says_where_it_looked(name: str, tmp_path: Path) -> None:
    dataset = make_component("dataset", Dataset, {"name": name} | ({"folder": "mine"} if name == "images" else {}))
    with pytest.raises(DataError) as caught:
        load(dataset, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    fetched = f"fedbench data {name} --root {tmp_path}"
    placed = f"place {tmp_path}/{dataset.folders[0]}/train-00000-of-00001.parquet"
    assert (fetched if getattr(dataset, "torchvision_name", None) else placed) in message
    for folder in dataset.folders:
        assert str(tmp_path / folder / "{train,test}-*.parquet") in message
    with pytest.raises(ConfigError, match=rf"data\.root: must be set with data\.dataset={name}"):
        load(dataset, None)
    with pytest.raises(DataError, match=r"data\.root=.*nowhere: no such folder"):
        load(dataset, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("dataset", "place"),
    [
        (Cifar10(), "cifar-10-batches-py"),
        (FashionMnist(), "FashionMNIST/raw"),
        (TinyImageNet(), "tiny-imagenet-200/train"),
    ],
)
def test_other_forms_are_named_among_the_places(dataset: Dataset, place: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path / place)):
        load(dataset, tmp_path)


def test_parquet_is_decoded_checked_and_described(tmp_path: Path, make_cifar10: Callable) -> None:
    images, labels = make_cifar10(tmp_path)
    data = load(Cifar10(), tmp_path)
    np.testing.assert_array_equal(data.train.inputs, images)
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.inputs, images[:10])
    assert (data.name, data.kind, data.classes, data.input_shape) == ("cifar10", "image", 10, (32, 32, 3))
    assert data.class_names[0] == "airplane"
    assert data.source == "Parquet in cifar10/"
    assert (data.vocabulary_size, data.padding_index) == (0, -1)


def test_a_second_load_does_not_decode(
    tmp_path: Path, make_cifar10: Callable, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar10(tmp_path)
    first = load(Cifar10(), tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(dataset_module.ImageDataset, "read", refuse)
    second = load(Cifar10(), tmp_path)
    assert isinstance(second.train.inputs, np.memmap)
    assert not second.train.inputs.flags.writeable
    assert first.fingerprint == second.fingerprint
    make_cifar10(tmp_path, seed=1)
    with pytest.raises(AssertionError, match="decoded again"):
        load(Cifar10(), tmp_path)


def test_equal_content_elsewhere_has_an_equal_fingerprint(tmp_path: Path, make_cifar10: Callable) -> None:
    make_cifar10(tmp_path / "a")
    make_cifar10(tmp_path / "b", folder="cifar-10")
    make_cifar10(tmp_path / "c", seed=1)
    prints = [load(Cifar10(), tmp_path / root).fingerprint for root in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_papers_normalisation_is_used() -> None:
    for dataset in (Cifar100(), TinyImageNet()):
        assert dataset.published == ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))


@pytest.mark.parametrize(
    ("dataset", "shape", "classes"), [(Cifar10(), (32, 32, 3), 10), (TinyImageNet(), (64, 64, 3), 200)]
)
def test_an_outline_has_the_shape_and_takes_no_memory(dataset: Cifar10, shape: tuple[int, ...], classes: int) -> None:
    outline = dataset.outline()
    assert outline.input_shape == shape
    assert outline.classes == classes
    assert np.bincount(outline.train.labels).tolist() == [len(outline.train) // classes] * classes
    assert outline.train.inputs.strides == (0, 0, 0, 0)


def test_a_test_fraction_without_effect_is_refused(tmp_path: Path, make_cifar10: Callable) -> None:
    make_cifar10(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.test_fraction has no effect: cifar10 has a test split of its own"):
        load(Cifar10(), tmp_path, test_fraction=0.2)


def test_images_of_another_size_are_another_data_set(tmp_path: Path, random_images: RandomImages) -> None:
    for split in ("train", "test"):
        images = random_images(3, 16, seed=len(split))
        write_parquet(tmp_path / "cifar10" / f"{split}.parquet", images, np.arange(3), list("abcdefghij"))
    with pytest.raises(DataError, match=r"train\.parquet, row 0: image of 16x16 pixels, expected 32x32"):
        load(Cifar10(), tmp_path)


def test_a_missing_split_is_named(tmp_path: Path, random_images: RandomImages) -> None:
    write_parquet(tmp_path / "mnist" / "train.parquet", random_images(3, 28, 1), np.arange(3), list("0123456789"))
    with pytest.raises(DataError, match="no test or validation split, found train"):
        load(Mnist(), tmp_path)
    (tmp_path / "mnist" / "train.parquet").rename(tmp_path / "mnist" / "test.parquet")
    with pytest.raises(DataError, match="no train split, found only test"):
        load(Mnist(), tmp_path)


@pytest.mark.parametrize("folder", ["fashion_mnist", "fashion-mnist"])
def test_both_spellings_are_found(tmp_path: Path, random_images: RandomImages, folder: str) -> None:
    names = FashionMnist.known_classes
    for split in ("train", "test"):
        images = random_images(10, 28, 1, seed=len(split))
        write_parquet(tmp_path / folder / f"{split}.parquet", images, np.arange(10), names)
    data = load(FashionMnist(), tmp_path)
    assert data.input_shape == (28, 28, 1)
    assert data.class_names == names


def test_superclasses_are_twenty_of_five() -> None:
    assert len(FINE_NAMES) == len(set(FINE_NAMES)) == 100
    coarse = coarse_labels(np.arange(100))
    assert np.bincount(coarse).tolist() == [5] * 20
    # The published coarse labels of the first classes, apple to beetle.
    assert coarse[:8].tolist() == [4, 1, 14, 8, 0, 6, 7, 7]
    assert list(SUPERCLASSES)[4] == "fruit_and_vegetables"


def test_coarse_labels_replace_the_fine_ones(tmp_path: Path, random_images: RandomImages) -> None:
    for split in ("train", "test"):
        file = tmp_path / "cifar100" / f"{split}.parquet"
        images = random_images(100, seed=len(split))
        write_parquet(file, images, np.arange(100), FINE_NAMES, image_column="img", label_column="fine_label")
    fine, coarse = (load(Cifar100(labels=kind), tmp_path) for kind in ("fine", "coarse"))
    assert fine.classes == 100
    assert coarse.class_names == tuple(SUPERCLASSES)
    np.testing.assert_array_equal(coarse.train.labels, coarse_labels(fine.train.labels))
    assert fine.fingerprint != coarse.fingerprint


def write_cifar_batches(root: Path, images: np.ndarray, labels: np.ndarray) -> type:
    """Writes a small cifar-10-batches-py; gives a class that checks it against its own MD5s."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    digests = {}
    for name, rows in (("data_batch_1", slice(0, 15)), ("data_batch_2", slice(15, 30)), ("test_batch", slice(0, 10))):
        batch = {"data": images[rows].transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(Cifar10.known_classes or ())}))
    for path in folder.iterdir():
        digests[path.name] = hashlib.md5(path.read_bytes()).hexdigest()

    from torchvision.datasets import CIFAR10

    class Small(CIFAR10):
        train_list = [["data_batch_1", digests["data_batch_1"]], ["data_batch_2", digests["data_batch_2"]]]  # noqa: RUF012
        test_list = [["test_batch", digests["test_batch"]]]  # noqa: RUF012
        meta = {"filename": "batches.meta", "key": "label_names", "md5": digests["batches.meta"]}  # noqa: RUF012

    return Small


def test_torchvisions_cifar_files_are_read(tmp_path: Path, random_images: RandomImages) -> None:
    images, labels = random_images(30), np.arange(30) % 10
    small = write_cifar_batches(tmp_path, images, labels)
    source = torchvision_source(tmp_path, "CIFAR10", small)
    assert source is not None
    splits, names = Cifar10().read(source)
    np.testing.assert_array_equal(splits.train.images, images)
    np.testing.assert_array_equal(splits.train.labels, labels)
    assert splits.test is not None
    assert splits.validation is None
    np.testing.assert_array_equal(splits.test.images, images[:10])
    assert names == Cifar10.known_classes


def test_changed_torchvision_files_are_refused(tmp_path: Path, random_images: RandomImages) -> None:
    write_cifar_batches(tmp_path, random_images(30), np.arange(30) % 10)
    with pytest.raises(DataError, match=r"cifar-10-batches-py: torchvision cannot read it .*get it again"):
        load(Cifar10(), tmp_path)


def write_idx(root: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        header = struct.pack(">iiii", 2051, len(images), 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, len(labels)) + labels.tobytes())
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"left from the download"))


@pytest.mark.parametrize(("dataset", "name"), [(Mnist(), "MNIST"), (FashionMnist(), "FashionMNIST")])
def test_torchvisions_mnist_files_are_read_and_cached(
    tmp_path: Path, random_images: RandomImages, dataset: Dataset, name: str
) -> None:
    images = random_images(20, 28, 1)
    write_idx(tmp_path, name, images, np.arange(20, dtype=np.uint8) % 10)
    for _ in range(2):
        data = load(dataset, tmp_path)
        np.testing.assert_array_equal(data.train.inputs, images)
        assert data.train.labels.tolist() == [*range(10), *range(10)]
        assert data.source == f"torchvision's files in {name}/raw/"


def test_torchvision_labels_out_of_range_are_refused(tmp_path: Path, random_images: RandomImages) -> None:
    write_idx(tmp_path, "MNIST", random_images(3, 28, 1), np.array([0, 1, 10], np.uint8))
    with pytest.raises(DataError, match=r"labels 0\.\.10, expected 0\.\.9"):
        load(Mnist(), tmp_path)


def test_truncated_torchvision_files_are_refused(tmp_path: Path, random_images: RandomImages) -> None:
    write_idx(tmp_path, "MNIST", random_images(3, 28, 1), np.array([0, 1, 2], np.uint8))
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="torchvision cannot read it"):
        load(Mnist(), tmp_path)


def test_images_of_ones_own_are_loaded_without_class_names(
    tmp_path: Path, random_images: RandomImages, image_bytes: Callable[..., bytes]
) -> None:
    for split, labels in (("train", [0, 2]), ("validation", [1, 3])):
        encoded = [{"bytes": image_bytes(image), "path": None} for image in random_images(2, 20)]
        (tmp_path / "mine").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": encoded, "label": labels}), tmp_path / "mine" / f"{split}.parquet")
    data = load(ParquetImages(folder="mine"), tmp_path)
    assert data.class_names == ("0", "1", "2", "3")
    assert data.input_shape == (20, 20, 3)
    assert data.source == "Parquet in mine/, validation as the test split"
