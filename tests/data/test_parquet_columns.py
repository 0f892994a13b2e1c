"""Data sets of any columns, without code: what the names and types of the columns make of them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fedbench.data.arrays import ArrayScaling
from fedbench.data.base import FederatedData
from fedbench.data.contract import check_data
from fedbench.data.parquet_dataset import ParquetDataset
from fedbench.data.retask import with_task
from fedbench.data.text import AgNews
from fedbench.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def load(root: Path, test_fraction: float | None = None, seed: int = 0, **parameters: Any) -> FederatedData:
    dataset = ParquetDataset(**parameters)
    dataset.check(root)
    return check_data(dataset, dataset.load(root, test_fraction=test_fraction, seed=seed))


def write(root: Path, columns: dict[str, Any], split: str = "train", features: dict[str, Any] | None = None) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = root / f"{split}.parquet"
    pq.write_table(table, path)
    return path


def png(pixels: np.ndarray, mode: str | None = None) -> dict[str, Any]:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def refusal(root: Path, **parameters: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        load(root, **parameters)
    message = str(caught.value)
    assert "\n" not in message
    return message


TABLE = {"age": [1, 2, 3, 4, 5], "weight": [0.5, 1.5, 2.5, 3.5, 4.5], "smokes": [True, False, True, False, True]}


def test_columns_of_numbers_are_a_row_of_a_table(tmp_path: Path) -> None:
    write(tmp_path, TABLE | {"label": ["no", "yes", "no", "yes", "no"]})
    write(tmp_path, {"smokes": [True], "weight": [9.0], "age": [7], "label": ["yes"]}, "test")
    data = load(tmp_path)
    assert (data.kind, data.task, data.class_names) == ("array", "classification", ("no", "yes"))
    assert data.train.inputs.dtype == np.float32
    assert data.train.inputs[1].tolist() == [2.0, 1.5, 0.0]
    assert data.test.inputs.tolist() == [[7.0, 9.0, 1.0]]
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_allclose(data.mean, [3.0, 2.5, 0.6])
    np.testing.assert_allclose(data.std, [np.sqrt(2), np.sqrt(2), np.sqrt(0.24)])
    assert "inputs age, weight, smokes; label label" in data.source


def test_named_columns_are_read_and_the_others_are_said_to_be_unused(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    data = load(tmp_path, inputs=["age"], label="weight", test_fraction=0.4)
    assert (data.task, data.class_names, data.train.inputs.shape) == ("regression", ("weight",), (3, 1))
    assert data.train.labels.dtype == np.float32
    assert "unused smokes" in data.source
    assert data.test_split_by_seed


def test_the_type_of_the_label_says_the_task(tmp_path: Path) -> None:
    labels: dict[str, Any] = {
        "classification": [7, 3, 7, 3, 9],
        "regression": [0.0, 1.0, 0.0, 1.0, 0.5],
        "multilabel": [[0, 1], [1, 1], [0, 0], [1, 0], [1, 0]],
    }
    for task, values in labels.items():
        write(tmp_path, {"age": TABLE["age"], "label": values})
        assert load(tmp_path, test_fraction=0.5).task == task
    write(tmp_path, {"age": TABLE["age"], "label": labels["classification"]})
    assert load(tmp_path, test_fraction=0.5).class_names == ("3", "7", "9")
    write(tmp_path, {"age": TABLE["age"], "label": TABLE["smokes"]})
    assert load(tmp_path, test_fraction=0.5).class_names == ("false", "true")
    write(tmp_path, {"age": TABLE["age"], "label": [[0.5, 2.0]] * 5})
    assert load(tmp_path, test_fraction=0.5).class_names == ("label[0]", "label[1]")


def test_a_regression_of_whole_numbers_has_these_as_its_targets(tmp_path: Path) -> None:
    write(tmp_path, {"age": TABLE["age"], "label": [7, 3, 7, 3, 9]})
    write(tmp_path, {"age": [1], "label": [9]}, "test")
    data = with_task(load(tmp_path), "regression")
    assert data.train.labels.tolist() == [[7], [3], [7], [3], [9]]
    assert data.test.labels.tolist() == [[9]]


def test_several_columns_of_labels_are_targets_or_labels(tmp_path: Path) -> None:
    write(tmp_path, {"age": TABLE["age"], "a": [0, 1, 1, 0, 1], "b": [1, 1, 0, 0, 1], "c": [0.1, 0.2, 0.3, 0.4, 0.5]})
    multilabel = load(tmp_path, inputs=["age"], label=["a", "b"])
    assert (multilabel.task, multilabel.class_names) == ("multilabel", ("a", "b"))
    assert multilabel.train.labels.dtype == np.uint8
    targets = load(tmp_path, inputs=["age"], label=["a", "c"])
    assert (targets.task, targets.class_names, targets.train.labels.shape) == ("regression", ("a", "c"), (4, 2))


def test_lists_of_names_or_of_class_indices_are_several_labels(tmp_path: Path) -> None:
    ages = TABLE["age"]
    write(tmp_path, {"age": ages, "label": [["x"], ["z", "x"], [], ["y"], ["x", "y", "z"]]})
    named = load(tmp_path, test_fraction=0.2)
    assert (named.task, named.class_names) == ("multilabel", ("x", "y", "z"))
    for feature in (
        {"feature": {"names": ["p", "q", "r"], "_type": "ClassLabel"}, "length": -1, "_type": "Sequence"},
        {"feature": {"names": ["p", "q", "r"], "_type": "ClassLabel"}, "_type": "List"},
    ):
        write(tmp_path, {"age": ages, "label": [[0], [2, 0], [], [1], [0, 1, 2]]}, features={"label": feature})
        write(tmp_path, {"age": [1], "label": [[2]]}, "test", features={"label": feature})
        indexed = load(tmp_path)
        assert (indexed.task, indexed.class_names) == ("multilabel", ("p", "q", "r"))
        assert indexed.train.labels.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
        assert indexed.test.labels.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("labels", [[["x"], [], ["x"], [], []], [[1], [0], [1], [0], [0]]])
def test_a_single_label_that_applies_or_not_is_a_class(labels: list[list[Any]], tmp_path: Path) -> None:
    write(tmp_path, {"age": TABLE["age"], "label": labels})
    assert "column 'label' have 1 label(s) in the train split, expected 2 or more; write" in refusal(tmp_path)


@pytest.mark.parametrize("kind", [pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.int16(), 3), 2)])
def test_nested_lists_are_arrays(kind: pa.DataType, tmp_path: Path) -> None:
    values = RNG.integers(0, 9, (6, 2, 3))
    write(tmp_path, {"spectrogram": pa.array(values.tolist(), kind), "y": [0, 1] * 3})
    write(tmp_path, {"spectrogram": pa.array(values[:4].tolist(), kind), "y": [0, 1] * 2}, "test")
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.inputs, values.astype(np.float32))
    np.testing.assert_allclose(data.mean, values.mean(axis=(0, 1)))
    np.testing.assert_allclose(data.std, values.std(axis=(0, 1)))
    assert data.test_rows_in_train == 4


def test_several_columns_of_lists_are_a_series_with_a_value_for_each(tmp_path: Path) -> None:
    series = RNG.normal(size=(2, 6, 10))
    write(tmp_path, {"x": series[0].tolist(), "z": series[1].tolist(), "label": [0, 1] * 3})
    data = load(tmp_path, inputs=["x", "z"], test_fraction=0.3)
    assert data.input_shape == (2, 10)
    rows = data.train.inputs.astype(np.float64)
    np.testing.assert_allclose(data.mean, np.repeat(rows.mean(axis=(0, 2)), 10), rtol=1e-6)
    np.testing.assert_allclose(data.std, np.repeat(rows.std(axis=(0, 2)), 10), rtol=1e-6)
    normalised = ArrayScaling(data.mean, data.std)(torch.from_numpy(data.train.inputs))
    np.testing.assert_allclose(normalised.mean(dim=(0, 2)), [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(normalised.std(dim=(0, 2), unbiased=False), [1.0, 1.0], rtol=1e-5)
    assert load(tmp_path, inputs="x", test_fraction=0.3).input_shape == (10,)
    assert load(tmp_path, inputs=["x"], test_fraction=0.3).input_shape == (1, 10)


def test_images_and_names_of_classes_come_from_the_metadata(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    columns = {"img": [png(image) for image in pixels], "fine_label": [0, 1, 2] * 2, "coarse_label": [0, 0, 1] * 2}
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": ["ash", "beech", "cat"], "_type": "ClassLabel"},
        "coarse_label": {"names": ["tree", "animal"], "_type": "ClassLabel"},
    }
    write(tmp_path, columns, features=features)
    write(tmp_path, {name: values[:3] for name, values in columns.items()}, "validation", features=features)
    data = load(tmp_path)
    assert (data.kind, data.class_names) == ("image", ("ash", "beech", "cat"))
    np.testing.assert_array_equal(data.train.inputs, pixels)
    assert "validation as the test split" in data.source
    assert "unused coarse_label" in data.source
    held_out = load(tmp_path, test_fraction=0.5)
    assert held_out.validation is not None
    assert (len(held_out.train), len(held_out.test), len(held_out.validation)) == (3, 3, 3)


def test_an_image_as_label_is_a_mask(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    masks = RNG.integers(0, 3, (4, 6, 6), dtype=np.uint8)
    masks[0, 0, 0], masks[0, 0, 1] = 2, 255
    images = [png(image) for image in pixels]
    write(tmp_path, {"image": images, "mask": [png(mask) for mask in masks]})
    data = load(tmp_path, test_fraction=0.25)
    assert (data.task, data.class_names) == ("segmentation", ("0", "1", "2"))
    assert data.train.labels.dtype == np.uint8
    together = np.concatenate([data.train.labels, data.test.labels])
    assert sorted(map(bytes, together)) == sorted(map(bytes, masks))
    write(tmp_path, {"image": images, "mask": [png(mask, "P") for mask in np.zeros_like(masks)]})
    assert "the masks of the train split have only the class 0, expected 2 classes or more" in refusal(tmp_path)
    write(tmp_path, {"image": images, "mask": masks.tolist()})
    assert load(tmp_path).task == "segmentation"
    write(tmp_path, {"image": images, "mask": [png(mask[:5]) for mask in masks]})
    assert "train.parquet, row 0: mask of 5x6 pixels for an image of 6x6" in refusal(tmp_path)


def test_texts_are_tokens_and_without_labels_each_next_one_is_the_label(tmp_path: Path) -> None:
    write(tmp_path, {"text": ["a b a", "b"], "label": [0, 1]})
    write(tmp_path, {"text": ["a c"], "label": [1]}, "test")
    data = load(tmp_path, max_tokens=3)
    assert (data.kind, data.task) == ("text", "classification")
    assert data.train.inputs.tolist() == [[2, 3, 2], [3, 0, 0]]
    assert data.test.inputs.tolist() == [[2, 1, 0]]
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").unlink()
    write(tmp_path, {"text": ["a b a", "b a b a a"], "user": ["ann", "ben"]})
    write(tmp_path, {"text": ["a b"], "user": ["ben"]}, "test")
    data = load(tmp_path, max_tokens=2)
    assert data.task == "next_token"
    assert data.train.inputs.tolist() == [[2, 3], [3, 2], [3, 2]]
    assert data.train.labels.tolist() == [[3, 2], [2, 3], [2, 2]]
    assert data.test.labels.tolist() == [[3, -100]]
    assert data.train.owners.tolist() == [0, 1, 1]
    assert data.test.owners.tolist() == [1]
    assert data.class_names == ("<padding>", "<unknown>", "a", "b")
    characters = load(tmp_path, max_tokens=4, tokens="characters")
    assert characters.class_names[2:] == (" ", "a", "b")
    assert characters.train.inputs[0].tolist() == [3, 2, 4, 2]


def test_rows_have_owners_and_each_gives_its_share_to_the_test_split(tmp_path: Path) -> None:
    write(tmp_path, {"age": list(range(20)), "label": [0, 1] * 10, "site": ["b"] * 5 + ["a"] * 15})
    data = load(tmp_path, owner="site", test_fraction=0.2)
    assert np.bincount(data.train.owners).tolist() == [12, 4]
    assert np.bincount(data.test.owners).tolist() == [3, 1]
    assert "0.2 of each owner's rows held out" in data.source
    again, other = (load(tmp_path, owner="site", test_fraction=0.2, seed=seed) for seed in (0, 1))
    assert data.fingerprint == again.fingerprint != other.fingerprint


def test_shards_are_joined_in_order_and_equal_content_has_an_equal_fingerprint(tmp_path: Path) -> None:
    rows = {"age": list(range(30)), "label": [0, 1] * 15}
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    whole.mkdir()
    shards.mkdir()
    write(whole, rows)
    for shard in range(3):
        part = {name: values[10 * shard : 10 * shard + 10] for name, values in rows.items()}
        write(shards, part, f"train-0000{shard}-of-00003")
    assert load(whole).fingerprint == load(tmp_path, folder="shards").fingerprint
    (shards / "train-00001-of-00003.parquet").unlink()
    assert "number 1 is missing" in refusal(shards)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"x": [[1.0, 2.0], None, [3.0, 4.0]], "label": [0, 1, 1]}, "row 1: column 'x' is empty (null)"),
        ({"x": [[1.0, 2.0], [1.0, None], [3.0, 4.0]], "label": [0, 1, 1]}, "row 1: column 'x' has an empty value"),
        ({"x": [[1.0, 2.0], [3.0, 4.0], [5.0]], "label": [0, 1, 1]}, "row 2: column 'x' has a list of 1 values"),
        ({"x": [[1.0, 2.0], [3.0, float("nan")]], "label": [0, 1]}, "row 1: column 'x' is not a number (NaN)"),
        ({"x": [[1.0, 1e300], [3.0, 4.0]], "label": [0, 1]}, "row 0: column 'x' is 1e+300, beyond the range"),
        ({"x": [[1.0], [2.0]], "label": ["a", None]}, "row 1: column 'label' is empty (null)"),
        ({"x": [[1.0], [2.0]], "label": [0.5, float("nan")]}, "row 1: column 'label' is not a number (NaN)"),
        ({"x": [[1.0], [2.0]], "label": [[0, 1], [0, 3]]}, "row 1: column 'label' has lists of whole numbers"),
        ({"x": [[1.0], [2.0]], "label": [["a"], None]}, "row 1: column 'label' is empty (null)"),
        ({"x": [[1.0], [2.0]], "label": [["a"], [None]]}, "row 1: column 'label' is or has an empty value"),
        ({"x": [[1.0], [2.0]], "label": [0, 1], "user": [None, "a"]}, "row 0: column 'user' is empty"),
        (
            {"image": [png(np.zeros((3, 3), np.uint8)), {"bytes": b"no", "path": None}], "label": [0, 1]},
            "row 1: cannot",
        ),
        ({"image": [png(np.zeros((s, 3), np.uint8)) for s in (3, 4)], "label": [0, 1]}, "row 1: image of 4x3 pixels"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_row(columns: dict[str, Any], row: str, tmp_path: Path) -> None:
    write(tmp_path, columns)
    assert f"train.parquet, {row}" in refusal(tmp_path)


def test_a_row_of_another_split_is_held_against_the_training_split(tmp_path: Path) -> None:
    write(tmp_path, {"x": [[1.0, 2.0], [3.0, 4.0]], "label": ["a", "b"]})
    write(tmp_path, {"x": [[1.0, 2.0], [3.0, 4.0]], "label": ["a", "c"]}, "test")
    assert "test.parquet, row 1: column 'label' has the label 'c', expected one of the 2" in refusal(tmp_path)
    write(tmp_path, {"x": [[1.0, 2.0, 3.0]], "label": ["a"]}, "test")
    message = refusal(tmp_path)
    assert "test.parquet, row 0: column 'x' has a list of 3 values, expected 2" in message
    assert "train.parquet, row 0" in message
    write(tmp_path, {"x": ["text"], "label": ["a"]}, "test")
    assert "test.parquet: column 'x' is string (text)" in refusal(tmp_path)
    write(tmp_path, {"z": [[1.0, 2.0]], "label": ["a"]}, "test")
    assert "test.parquet: no needed column: expected 'x', found z, label" in refusal(tmp_path)


def test_what_is_not_clear_is_asked_for_with_the_columns_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, {"age": [1, 2], "town": ["a", "b"], "label": [0, 1]})
    assert "beside label and owner there are: age (int64), town (string)" in refusal(tmp_path)
    write(tmp_path, {"age": [1, 2], "weight": [1.0, 2.0]})
    assert "no label column: none of age, weight is named label, labels" in refusal(tmp_path)
    write(tmp_path, {"text": ["a b", "c d"], "topic": ["x", "y"]})
    assert "data.dataset.label=[] to predict each next token" in refusal(tmp_path)
    assert load(tmp_path, label=[], test_fraction=0.5).task == "next_token"
    write(tmp_path, {"age": [1, 2], "label": [0, 1], "target": [0, 1]})
    assert "label, target may each be the label" in refusal(tmp_path)
    assert "no column 'agee' (data.dataset.inputs); found age, label, target" in refusal(tmp_path, inputs="agee")
    assert "column 'age' is named twice" in refusal(tmp_path, inputs="age", label="age")
    write(tmp_path, {"sound": [{"bytes": b"", "path": "a.wav"}], "label": [0]}, features={"sound": {"_type": "Audio"}})
    assert "column 'sound' is Audio, which cannot be inputs" in refusal(tmp_path, inputs="sound")


def test_an_option_without_effect_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TABLE | {"label": [0, 1, 0, 1, 0]})
    assert "data.dataset.max_tokens=5: has no effect, the inputs age, weight, smokes" in refusal(tmp_path, max_tokens=5)
    assert "data.dataset.channels=3: has no effect" in refusal(tmp_path, channels=3)
    write(tmp_path, {"age": [1], "label": [0]}, "test")
    assert "data.test_fraction has no effect" in refusal(tmp_path, inputs=["age"], test_fraction=0.2)


def test_a_folder_without_tables_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: must be set with data\.dataset=parquet"):
        ParquetDataset().check(None)
    (tmp_path / "notes.txt").touch()
    assert "1 file, which is not Parquet (notes.txt)" in refusal(tmp_path)
    assert f"{tmp_path}/mine/{{train,test}}-*.parquet" in refusal(tmp_path, folder="mine")


def test_one_file_of_any_name_is_the_training_split(tmp_path: Path) -> None:
    write(tmp_path, TABLE | {"label": [0, 1, 0, 1, 0]}, "patients")
    assert len(load(tmp_path).train) == 4


def test_rows_are_cached_by_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TABLE | {"label": [0, 1, 0, 1, 0]})
    write(tmp_path, {name: values[:2] for name, values in TABLE.items()} | {"label": [0, 1]}, "test")
    first = load(tmp_path)
    monkeypatch.setattr("fedbench.data.column_dataset.read_rows", lambda *_: 1 / 0)
    assert load(tmp_path).fingerprint == first.fingerprint
    assert isinstance(load(tmp_path).train.inputs, np.memmap)
    with pytest.raises(ZeroDivisionError):
        load(tmp_path, inputs=["age"])


def test_real_texts_are_read_as_by_their_own_data_set(real_data: Path) -> None:
    if not (real_data / "ag_news").is_dir():
        pytest.skip("no AG News among the real data")
    data = load(real_data, folder="ag_news")
    named = AgNews().load(real_data, test_fraction=None, seed=0)
    np.testing.assert_array_equal(data.train.inputs, named.train.inputs)
    np.testing.assert_array_equal(data.test.labels, named.test.labels)
    assert (data.class_names, data.vocabulary_size) == (named.class_names, named.vocabulary_size)
