"""`fedbench data`: what is there is checked, other forms become Parquet, nothing half-made stays."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fedbench.data.convert as convert
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.convert import describe, fetch_or_convert
from fedbench.data.images import Cifar10, Mnist
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.federation import load_federation

RandomImages = Callable[..., np.ndarray]


@pytest.fixture
def image_folder(tmp_path: Path, random_images: RandomImages, image_bytes: Callable[..., bytes]) -> Path:
    """Ten classes of 32x32 colour PNGs: two training images and one test image each."""
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(Cifar10.known_classes or ()):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for index, image in enumerate(random_images(count, seed=10 * label + count)):
                (folder / f"{index}.png").write_bytes(image_bytes(image))
    return tmp_path / "tree"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_an_image_folder_becomes_parquet_with_the_same_pixels(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    report = fetch_or_convert("cifar10", root, image_folder)
    assert report.written
    assert report.rows == {"train": 20, "test": 10}
    assert report.shape == (32, 32, 3)
    assert report.class_names == Cifar10.known_classes
    assert report.source == "Parquet in cifar10/"
    assert names_in(root) == ["cifar10"]
    assert names_in(root / "cifar10") == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert report.files == 2
    assert report.bytes == sum(path.stat().st_size for path in (root / "cifar10").iterdir())
    train = Cifar10().find_parquet(root).read().train
    original = convert.tree_source(image_folder, Cifar10().kind).read().train
    np.testing.assert_array_equal(train.images, original.images)
    np.testing.assert_array_equal(train.labels, original.labels)


def test_parquet_that_is_there_is_checked_not_written(
    tmp_path: Path, make_cifar10: Callable, image_folder: Path
) -> None:
    make_cifar10(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cifar10").iterdir()}
    report = fetch_or_convert("cifar10", tmp_path)
    assert not report.written
    assert report == describe("cifar10", tmp_path) == describe(Cifar10(), tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cifar10").iterdir()}
    with pytest.raises(ConfigError, match=r"--source .* has no effect, .*cifar10 has Parquet"):
        fetch_or_convert("cifar10", tmp_path, image_folder)


def test_a_tree_of_ones_own_becomes_a_data_set(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "test").rename(image_folder / "val")
    report = fetch_or_convert("mine", tmp_path / "root", image_folder)
    assert report.rows == {"train": 20, "test": 10}
    data = ParquetImages(folder="mine").load(tmp_path / "root", test_fraction=None, seed=0)
    assert data.class_names == report.class_names
    assert describe("mine", tmp_path / "root").fingerprint == report.fingerprint


def test_torchvisions_files_under_the_root_are_converted(tmp_path: Path, random_images: RandomImages) -> None:
    images = random_images(20, 28, 1)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        pixels = images if split == "train" else images[::-1]
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 20, 28, 28) + pixels.tobytes())
        labels = bytes(index % 10 for index in range(20))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 20) + labels)
    for root, source in ((tmp_path / "one", tmp_path), (tmp_path / "two", raw), (tmp_path / "three", raw.parent)):
        assert fetch_or_convert("mnist", root, source).written
        np.testing.assert_array_equal(Mnist().find_parquet(root).read().train.images, images)
    report = fetch_or_convert("mnist", tmp_path)
    assert report.written
    assert report.source == "Parquet in mnist/"
    assert report.class_names == tuple("0123456789")


def test_damage_in_the_source_leaves_nothing_behind(image_folder: Path, tmp_path: Path) -> None:
    file = image_folder / "test" / "truck" / "0.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=str(file)):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)
    assert names_in(tmp_path / "root") == []


@pytest.mark.parametrize("failure", [DataError("no space"), OSError("no space"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing_behind(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    write, calls = convert.write_parquet, []

    def fail_second(path: Path, *args: Any, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise failure
        write(path, *args, **options)

    monkeypatch.setattr(convert, "write_parquet", fail_second)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DataError):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)
    assert names_in(tmp_path / "root") == []


def test_splits_appear_together_or_not_at_all(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fail_for_the_test_split(path: Path, target: Path) -> Path:
        if Path(target).parent.name == "cifar10" and Path(target).name.startswith("test"):
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_test_split)
    with pytest.raises(DataError, match="No space left on device"):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)
    assert names_in(tmp_path / "root") == []
    (tmp_path / "root" / "cifar10").mkdir(parents=True)
    (tmp_path / "root" / "cifar10" / "notes.txt").touch()
    with pytest.raises(DataError, match="No space left on device"):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)
    assert names_in(tmp_path / "root" / "cifar10") == ["notes.txt"]


def test_a_class_that_training_does_not_have_is_named(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "test" / "truck").rename(image_folder / "test" / "lorry")
    with pytest.raises(DataError, match=r"test/lorry: no such class in train"):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)


def test_a_tree_without_test_images_is_refused(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "test").rename(image_folder / "other")
    with pytest.raises(DataError, match="train without a test split"):
        fetch_or_convert("cifar10", tmp_path / "root", image_folder)


def test_a_tree_of_another_data_set_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 classes, expected 100"):
        fetch_or_convert("cifar100", tmp_path / "root", image_folder)
    with pytest.raises(DataError, match="mode RGB"):
        fetch_or_convert("mnist", tmp_path / "root", image_folder)


def test_a_source_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--source .*empty: expected torchvision's files of CIFAR10, or a tree"):
        fetch_or_convert("cifar10", tmp_path / "root", tmp_path / "empty")
    with pytest.raises(DataError, match=r"--source .*nowhere: no such folder"):
        fetch_or_convert("cifar10", tmp_path / "root", tmp_path / "nowhere")


def test_a_download_without_network_says_what_to_place_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(root: str, download: bool) -> None:
        (Path(root) / "partial.tar.gz").touch()
        raise URLError("Name or service not known\nsecond line")

    monkeypatch.setattr(convert, "torchvision_class", lambda name: unreachable)
    with pytest.raises(DataError) as caught:
        fetch_or_convert("cifar10", tmp_path / "root")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "cannot be downloaded",
        "Name or service",
        str(tmp_path / "root" / "cifar10"),
        "torchvision's CIFAR10",
    ):
        assert part in message
    assert names_in(tmp_path / "root") == []


def test_a_download_is_converted_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_images: RandomImages
) -> None:
    images = random_images(10, 28, 1)

    def download(root: str, download: bool) -> None:
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            pixels = images if split == "train" else images[::-1]
            (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, 10, 28, 28) + pixels.tobytes())
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, 10) + bytes(range(10)))

    monkeypatch.setattr(convert, "torchvision_class", lambda name: download)
    assert fetch_or_convert("mnist", tmp_path / "root").rows == {"train": 10, "test": 10}
    assert names_in(tmp_path / "root") == ["mnist"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tiny-imagenet", ["has no download", "tiny-imagenet/train-00000-of-00001.parquet", "tiny-imagenet-200"]),
        ("femnist", ["writer_id", "character", "femnist/train-"]),
        ("ag-news", ["ag-news/{train,test}-*.parquet"]),
    ],
)
def test_what_cannot_be_downloaded_says_what_to_place_where(tmp_path: Path, name: str, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        fetch_or_convert(name, tmp_path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_digits_need_no_root_and_refuse_one(tmp_path: Path) -> None:
    report = describe("digits", None)
    assert sum(report.rows.values()) == len(load_digits().target)
    assert (report.bytes, report.files, report.shape) == (0, 0, (8, 8, 1))
    with pytest.raises(ConfigError, match=r"data\.root=.* has no effect with data\.dataset=digits"):
        fetch_or_convert("digits", tmp_path)
    with pytest.raises(ConfigError, match="no effect with digits"):
        fetch_or_convert("digits", tmp_path, tmp_path)


def test_an_unknown_name_is_suggested(tmp_path: Path) -> None:
    for call in (lambda: describe("cifra10", tmp_path), lambda: fetch_or_convert("cifra10", tmp_path)):
        with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
            call()
    with pytest.raises(ConfigError, match="no such data set"):
        fetch_or_convert("../outside", tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["cifar-10", "CIFAR10", "cifar_10"])
def test_a_built_in_name_is_known_by_its_letters(tmp_path: Path, make_cifar10: Callable, name: str) -> None:
    make_cifar10(tmp_path)
    assert describe(name, tmp_path) == fetch_or_convert(name, tmp_path) == describe("cifar10", tmp_path)
    config = ExperimentConfig.load("fedavg-cifar10", [f"data.dataset={name}", f"data.root={tmp_path}"])
    assert config.data.dataset.name == "cifar10"
    assert config.digest() == ExperimentConfig.load("fedavg-cifar10").digest()


def test_what_is_reported_of_a_folder_is_what_a_run_is_told(
    tmp_path: Path, image_bytes: Callable[..., bytes], image_folder: Path
) -> None:
    for file in image_folder.rglob("*.png"):
        grey = np.full((20, 20, 1), sum(map(ord, str(file))) % 256, np.uint8)
        file.write_bytes(image_bytes(grey))
    root = tmp_path / "root"
    report = fetch_or_convert("plants", root, image_folder)
    assert report.shape == (20, 20, 1)
    assert report.overrides == ("data.dataset=images", "data.dataset.folder=plants", f"data.root={root}")
    config = ExperimentConfig.load("fedavg-digits", report.overrides)
    assert load_federation(config).data.fingerprint == report.fingerprint == describe("plants", root).fingerprint


def test_a_tree_under_the_root_is_described_and_left_as_it_is(image_folder: Path) -> None:
    report = fetch_or_convert("tree", image_folder.parent)
    assert not report.written
    assert report.overrides[:2] == ("data.dataset=images", "data.dataset.folder=tree")
    assert names_in(image_folder) == ["test", "train"]


def test_notes_tell_of_classes_without_rows_and_of_test_rows_that_are_trained_on(
    tmp_path: Path, make_cifar10: Callable, random_images: RandomImages
) -> None:
    images, _ = make_cifar10(tmp_path)
    names = Cifar10.known_classes or ()
    write_parquet(tmp_path / "cifar10" / "train-00000-of-00001.parquet", images[:8], np.arange(8) % 4, names)
    notes = describe("cifar10", tmp_path).remarks
    assert notes == (
        "cifar10: 6 of 10 classes have no training rows (deer, dog, frog, horse, ship, ...)",
        "cifar10: 8 of 10 test rows (80.0%) are training rows, too",
    )
