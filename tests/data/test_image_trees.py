"""Tiny-ImageNet as a tree of files, and FEMNIST with its writers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.data.base import Dataset
from fedbench.data.images import Femnist, TinyImageNet
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.errors import ConfigError, DataError

RandomImages = Callable[..., np.ndarray]


def load(dataset: Dataset, root: Path | None, test_fraction: float | None = None, seed: int = 0) -> Any:
    return dataset.load(root, test_fraction=test_fraction, seed=seed)


@pytest.fixture
def tiny_tree(tmp_path: Path, random_images: RandomImages, image_bytes: Callable[..., bytes], monkeypatch: Any) -> Path:
    """A Tiny-ImageNet of three classes, with one grey image, in the original layout."""
    monkeypatch.setattr(TinyImageNet, "known_classes", None)
    folder = tmp_path / "tiny-imagenet-200"
    wnids = ["n01", "n02", "n03"]
    for label, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").touch()
        for index in range(2):
            pixels = random_images(1, 64, 1 if (label, index) == (2, 1) else 3, seed=label * 2 + index)[0]
            (folder / "train" / wnid / "images" / f"{wnid}_{index}.JPEG").write_bytes(image_bytes(pixels, "JPEG"))
    for split, count in (("val", 3), ("test", 1)):
        (folder / split / "images").mkdir(parents=True)
        for index in range(count):
            data = image_bytes(np.full((64, 64, 3), 40 * index, np.uint8), "JPEG")
            (folder / split / "images" / f"{split}_{index}.JPEG").write_bytes(data)
    lines = [f"val_{index}.JPEG\t{wnids[2 - index]}\t0\t0\t9\t9" for index in range(3)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_original_tiny_imagenet_tree_is_read_with_validation_as_test(tiny_tree: Path) -> None:
    data = load(TinyImageNet(), tiny_tree)
    assert data.class_names == ("n01", "n02", "n03")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [2, 1, 0]
    assert [int(image[0, 0, 0]) for image in data.test.inputs] == [0, 40, 80]
    assert data.input_shape == (64, 64, 3)
    grey = data.train.inputs[5]
    assert (grey[..., 0] == grey[..., 2]).all()
    assert "val as the test split" in data.source


def test_a_moved_label_in_a_tree_gives_another_entry(tiny_tree: Path) -> None:
    before = load(TinyImageNet(), tiny_tree)
    annotations = tiny_tree / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("n02", "n01"))
    after = load(TinyImageNet(), tiny_tree)
    assert after.test.labels.tolist() == [2, 0, 0]
    assert before.fingerprint != after.fingerprint


def test_annotations_that_lead_nowhere_are_named_with_their_line(tiny_tree: Path) -> None:
    annotations = tiny_tree / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    whole = annotations.read_text()
    annotations.write_text(whole.replace("n02", "n09"))
    with pytest.raises(DataError, match=r"val_annotations\.txt, line 2: class 'n09'"):
        load(TinyImageNet(), tiny_tree)
    annotations.write_text(whole.replace("val_2", "val_7"))
    with pytest.raises(DataError, match=r"line 3: no file .*val_7\.JPEG"):
        load(TinyImageNet(), tiny_tree)


def test_a_truncated_image_in_a_tree_is_named(tiny_tree: Path) -> None:
    file = tiny_tree / "tiny-imagenet-200" / "train" / "n02" / "images" / "n02_1.JPEG"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=f"{file}: cannot decode the image"):
        load(TinyImageNet(), tiny_tree)


@pytest.fixture
def femnist(tmp_path: Path, random_images: RandomImages) -> tuple[Path, np.ndarray, list[str]]:
    """FEMNIST with three writers of 10, 20 and 30 rows, without a test split."""
    images = random_images(60, 28, 1)
    writers = ["f0009_12"] * 10 + ["f0001_41"] * 20 + ["f0100_03"] * 30
    file = tmp_path / "femnist" / "data" / "train-00000-of-00001.parquet"
    names = [str(index) for index in range(62)]
    write_parquet(file, images, np.arange(60), names, label_column="character", owners=("writer_id", writers))
    return tmp_path, images, writers


def test_femnist_rows_keep_their_writer_and_the_test_split_is_drawn_within_each(
    femnist: tuple[Path, np.ndarray, list[str]],
) -> None:
    root, images, writers = femnist
    data = load(Femnist(), root)
    assert (data.classes, data.input_shape, data.mean) == (62, (28, 28, 1), None)
    assert np.bincount(data.test.owners).tolist() == [4, 2, 6]
    assert np.bincount(data.train.owners).tolist() == [16, 8, 24]
    order = sorted(set(writers))
    for split in (data.train, data.test):
        for pixels, label, owner in zip(split.inputs, split.labels, split.owners, strict=True):
            np.testing.assert_array_equal(pixels, images[label])
            assert order[owner] == writers[label]


def test_femnist_split_depends_on_fraction_and_seed(femnist: tuple[Path, np.ndarray, list[str]]) -> None:
    root = femnist[0]
    first, again, other = (load(Femnist(), root, seed=seed) for seed in (0, 0, 1))
    assert first.test.labels.tolist() == again.test.labels.tolist() != other.test.labels.tolist()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.test_split_by_seed
    assert len(load(Femnist(), root, test_fraction=0.5).test) == 30


def test_femnist_with_a_test_split_of_its_own_uses_it(
    femnist: tuple[Path, np.ndarray, list[str]], random_images: RandomImages
) -> None:
    root = femnist[0]
    names = [str(index) for index in range(62)]
    file = root / "femnist" / "data" / "test-00000-of-00001.parquet"
    owners = ("writer_id", ["f0100_03", "f0001_41"])
    write_parquet(file, random_images(2, 28, 1), np.array([60, 61]), names, label_column="character", owners=owners)
    data = load(Femnist(), root)
    assert (len(data.train), len(data.test)) == (60, 2)
    assert not data.test_split_by_seed
    assert data.test.owners.tolist() == [2, 0]
    with pytest.raises(ConfigError, match=r"data\.test_fraction has no effect: femnist"):
        load(Femnist(), root, test_fraction=0.2)


def test_femnist_without_writers_is_refused(tmp_path: Path, random_images: RandomImages) -> None:
    names = [str(index) for index in range(62)]
    write_parquet(tmp_path / "femnist" / "train.parquet", random_images(2, 28, 1), np.arange(2), names)
    with pytest.raises(DataError, match="no owner column: expected 'writer_id'"):
        load(Femnist(), tmp_path)


@pytest.fixture
def own_tree(tmp_path: Path, image_bytes: Callable[..., bytes]) -> Path:
    """Grey images of two classes as a tree in ROOT/plants, three to train and one to test on of each."""
    for split, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("fern", "moss")):
            folder = tmp_path / "plants" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.full((4, 4, 1), 100 * label + 10 * index + len(split), np.uint8)
                (folder / f"{index}.png").write_bytes(image_bytes(pixels))
    return tmp_path


def test_a_tree_of_ones_own_is_read_where_it_is_with_the_channels_that_it_has(own_tree: Path) -> None:
    data = load(ParquetImages(folder="plants"), own_tree)
    assert (data.class_names, data.input_shape) == (("fern", "moss"), (4, 4, 1))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load(ParquetImages(folder="plants", channels=3), own_tree).input_shape == (4, 4, 3)


def test_one_colour_image_in_either_split_makes_both_colour(own_tree: Path, image_bytes: Callable[..., bytes]) -> None:
    (own_tree / "plants/test/moss/9.png").write_bytes(image_bytes(np.full((4, 4, 3), (1, 2, 3), np.uint8)))
    data = load(ParquetImages(folder="plants"), own_tree)
    assert data.train.inputs.shape[1:] == data.test.inputs.shape[1:] == (4, 4, 3)
    assert (data.train.inputs[..., 0] == data.train.inputs[..., 2]).all()


def test_hidden_files_and_folders_of_a_tree_are_left_alone(own_tree: Path) -> None:
    before = load(ParquetImages(folder="plants"), own_tree)
    for split in ("train", "test"):
        place, copied = own_tree / "plants" / split, (own_tree / "plants" / split / "fern" / "0.png").read_bytes()
        for hidden in (place / ".ipynb_checkpoints", place / "fern" / ".ipynb_checkpoints", place / "__MACOSX"):
            hidden.mkdir()
            (hidden / "0-checkpoint.png").write_bytes(copied)
        (place / "moss" / "._0.png").write_bytes(b"\0\5\x16\7")
        (place / "moss" / "notes.txt").touch()
    after = load(ParquetImages(folder="plants"), own_tree)
    assert before.fingerprint == after.fingerprint


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "train/yew/notes.txt",
            "train/yew: no image files in this class folder, expected .*; fill the folder, or remove",
        ),
        ("train/0.png", r"train/0\.png: lies in none of the class folders"),
        ("test/0.png", r"test/0\.png: lies in none of the class folders"),
        ("train/fern/0.heic", r"0\.heic: \.heic files cannot be read as images; convert it"),
        ("train-00000-of-00001.parquet", "no test or validation split"),
    ],
)
def test_what_a_tree_would_lose_in_silence_is_refused(own_tree: Path, file: str, message: str) -> None:
    path = own_tree / "plants" / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(DataError, match=message):
        load(ParquetImages(folder="plants"), own_tree)


def test_parquet_beside_a_tree_is_refused(own_tree: Path, random_images: RandomImages) -> None:
    for split in ("train", "test"):
        images = random_images(2, 4, seed=len(split))
        write_parquet(own_tree / "plants" / f"{split}.parquet", images, np.arange(2), ["fern", "moss"])
    with pytest.raises(DataError, match=r"plants: holds Parquet files, and class folders of images \(fern\) in train"):
        load(ParquetImages(folder="plants"), own_tree)
