"""A validation split that data bring along: read in every form, checked like the others, and used."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import Dataset, FederatedData
from fedbench.data.cifar100_superclasses import FINE_NAMES, coarse_labels
from fedbench.data.convert import describe, fetch_or_convert
from fedbench.data.images import Cifar10, Cifar100, TinyImageNet
from fedbench.data.parquet_images import ParquetImages
from fedbench.data.parquet_writer import write_parquet
from fedbench.data.text import AgNews
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.federation import load_federation

RandomImages = Callable[..., np.ndarray]
VALIDATION = "validation-00000-of-00001.parquet"


def load(dataset: Dataset, root: Path) -> FederatedData:
    return dataset.load(root, test_fraction=None, seed=0)


@pytest.fixture
def cifar10(tmp_path: Path, make_cifar10: Callable[..., Any], random_images: RandomImages) -> Path:
    make_cifar10(tmp_path)
    labels = np.arange(12, dtype=np.int64) % 10
    write_parquet(tmp_path / "cifar10" / VALIDATION, random_images(12, seed=7), labels, Cifar10.known_classes or ())
    return tmp_path


def test_the_validation_files_of_a_parquet_data_set_are_its_validation_split(
    cifar10: Path, random_images: RandomImages
) -> None:
    data = load(Cifar10(), cifar10)
    assert data.validation is not None
    np.testing.assert_array_equal(data.validation.inputs, random_images(12, seed=7))
    np.testing.assert_array_equal(data.validation.labels, np.arange(12) % 10)
    assert (len(data.train), data.scored_rows, data.validation_by_seed) == (30, {"test": 10, "validation": 12}, False)
    assert describe("cifar10", cifar10).rows == {"train": 30, "test": 10, "validation": 12}
    (cifar10 / "cifar10" / VALIDATION).unlink()
    without = load(Cifar10(), cifar10)
    assert without.validation is None
    assert without.fingerprint != data.fingerprint


def test_a_run_uses_it_and_refuses_to_draw_another(cifar10: Path) -> None:
    def federation(*overrides: str) -> Any:
        return load_federation(
            ExperimentConfig.load(None, ["data.dataset=cifar10", f"data.root={cifar10}", "data.clients=3", *overrides])
        )

    assert len(federation().data.validation) == 12
    with pytest.raises(ConfigError, match=r"validation_fraction=0\.1 has no effect: cifar10 has a validation split of"):
        federation("data.validation_fraction=0.1")


def test_a_damaged_validation_split_is_refused_like_a_damaged_test_split(
    cifar10: Path, random_images: RandomImages
) -> None:
    wrong = np.full(12, 11, dtype=np.int64)
    write_parquet(cifar10 / "cifar10" / VALIDATION, random_images(12), wrong, Cifar10.known_classes or ())
    with pytest.raises(DataError, match=r"validation-00000-of-00001\.parquet.*label 11"):
        load(Cifar10(), cifar10)
    shutil.copy(cifar10 / "cifar10" / "test-00000-of-00001.parquet", cifar10 / "cifar10" / VALIDATION)
    with pytest.raises(DataError, match="the same content"):
        load(Cifar10(), cifar10)


def test_a_validation_split_that_serves_as_the_test_split_is_not_used_twice(
    tmp_path: Path, random_images: RandomImages
) -> None:
    for split in ("train", "validation"):
        path = tmp_path / "mine" / f"{split}.parquet"
        write_parquet(path, random_images(20, seed=len(split)), np.arange(20, dtype=np.int64) % 2, ("a", "b"))
    assert load(ParquetImages(folder="mine"), tmp_path).validation is None
    assert TinyImageNet.test_splits[0] == "validation"


def test_superclasses_are_those_of_the_validation_split_too(tmp_path: Path, random_images: RandomImages) -> None:
    labels = np.arange(100, dtype=np.int64)
    for seed, split in enumerate(("train", "test", "validation")):
        path = tmp_path / "cifar100" / f"{split}.parquet"
        write_parquet(path, random_images(100, seed=seed), labels, FINE_NAMES, label_column="fine_label")
    data = load(Cifar100(labels="coarse"), tmp_path)
    assert data.validation is not None
    np.testing.assert_array_equal(data.validation.labels, coarse_labels(labels))


@pytest.fixture
def tree(tmp_path: Path, random_images: RandomImages, image_bytes: Callable[..., bytes]) -> Path:
    """Image files by class in train, test and val, grey but for one of them in val."""
    for seed, (split, count) in enumerate((("train", 3), ("test", 2), ("val", 2))):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for index in range(count):
                channels = 3 if (split, name, index) == ("val", "dog", 1) else 1
                pixels = random_images(1, 8, channels, seed=100 * seed + 10 * label + index)[0]
                (tmp_path / "tree" / split / name / f"{index}.png").write_bytes(image_bytes(pixels))
    return tmp_path


def test_a_val_folder_beside_a_test_folder_is_the_validation_split(tree: Path) -> None:
    data = load(ParquetImages(folder="tree"), tree)
    assert data.validation is not None
    assert data.validation.labels.tolist() == [0, 0, 1, 1]
    assert data.scored_rows == {"test": 4, "validation": 4}
    assert "test as the test split, val for validation" in data.source
    assert {split.inputs.shape[-1] for split in (data.train, data.test, data.validation)} == {3}


def test_a_converted_tree_keeps_its_validation_split(tree: Path) -> None:
    report = fetch_or_convert("plants", tree / "root", tree / "tree")
    assert report.rows == {"train": 6, "test": 4, "validation": 4}
    assert VALIDATION in {path.name for path in (tree / "root" / "plants").iterdir()}


def test_texts_have_one_too_and_their_vocabulary_comes_from_training_alone(tmp_path: Path) -> None:
    (tmp_path / "ag-news").mkdir()
    rows = {"train": ["a cat", "a dog"], "test": ["a bird"], "validation": ["a cat flew"]}
    for split, texts in rows.items():
        labels = list(range(len(texts)))
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "ag-news" / f"{split}.parquet")
    data = load(AgNews(max_tokens=3), tmp_path)
    assert data.validation is not None
    assert data.validation.inputs.tolist() == [[2, 3, 1]]
    assert data.vocabulary_size == 5
