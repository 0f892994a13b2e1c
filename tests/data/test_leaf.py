"""LEAF's JSON files: users as natural clients, its three kinds of samples, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.contract import check_data
from fedbench.data.leaf_dataset import LeafDataset
from fedbench.data.partition import Natural
from fedbench.errors import ConfigError, DataError

Samples = dict[str, tuple[list[Any], list[Any]]]


def write(file: Path, samples: Samples, **changes: Any) -> None:
    """A file as LEAF's preprocessing writes it; {user: (x, y)}."""
    content = {
        "users": list(samples),
        "num_samples": [len(y) for _, y in samples.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in samples.items()},
        "hierarchies": [],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | changes), encoding="utf-8")


def load(root: Path, test_fraction: float | None = None, **parameters: Any) -> FederatedData:
    dataset = LeafDataset(**parameters)
    dataset.check(root)
    return check_data(dataset, dataset.load(root, test_fraction=test_fraction, seed=0))


def writers() -> Samples:
    """Pixels of 2x3 as LEAF's FEMNIST has them, shares of 255, by three writers."""
    rng = np.random.default_rng(0)
    pixels = {user: rng.integers(0, 256, (count, 6)) for user, count in (("f0", 4), ("f1", 7), ("f2", 2))}
    return {user: ((rows / 255).tolist(), (np.arange(len(rows)) % 5).tolist()) for user, rows in pixels.items()}


def test_pixels_are_images_of_the_writers(tmp_path: Path) -> None:
    samples = writers()
    for shard, user in enumerate(samples):
        place = tmp_path / "femnist" / "data" / "train" / f"all_data_{shard}_niid_0_keep_0_train_9.json"
        write(place, {user: samples[user]})
    held = {"f2": ([[0.5] * 6], [61])}
    write(tmp_path / "femnist" / "data" / "test" / "all_data_0_niid_0_keep_0_test_9.json", held)
    data = load(tmp_path, folder="femnist", pixels=[2, 3])
    assert (data.kind, data.task, data.input_shape, data.classes) == ("image", "classification", (2, 3, 1), 62)
    expected = np.concatenate([np.rint(255 * np.array(x)) for x, _ in samples.values()])
    np.testing.assert_array_equal(data.train.inputs.reshape(-1, 6), expected)
    assert data.train.labels.tolist() == [label for _, y in samples.values() for label in y]
    assert data.train.owners is not None
    parts = Natural().split(
        data.train.labels, 3, np.random.default_rng(0), samples_per_client=None, overlap=False, owners=data.train.owners
    )
    assert [len(part) for part in parts] == [4, 7, 2]
    assert (data.test.labels.tolist(), data.test.owners) == ([61], [2])
    assert data.test.inputs.ravel().tolist() == [128] * 6
    arrays = load(tmp_path, folder="femnist")
    assert (arrays.kind, arrays.input_shape) == ("array", (6,))


def test_the_next_character_of_all_data_is_held_out_by_user(tmp_path: Path) -> None:
    roles = {role: (["to be or not"[:k] for k in range(2, 12)], list("to be or not"[2:12])) for role in ("ANN", "BEN")}
    write(tmp_path / "all_data" / "all_data.json", roles)
    data = load(tmp_path, test_fraction=0.2, tokens="characters", max_tokens=12)
    assert (data.kind, data.task, data.class_names) == (
        "text",
        "classification",
        tuple(sorted(set("to be or not"[2:]))),
    )
    assert (len(data.train), len(data.test)) == (16, 4)
    assert np.bincount(data.test.owners).tolist() == [2, 2]
    assert "0.2 of each owner's rows held out" in data.source


def test_of_a_list_of_texts_the_named_one_is_read(tmp_path: Path) -> None:
    tweets = {"ann": ([["1", "now", "ann", "good day"], ["2", "now", "ann", "bad day"]], [1, 0])}
    write(tmp_path / "train" / "a.json", tweets)
    write(tmp_path / "test" / "b.json", {"ben": ([["3", "now", "ben", "good"]], [1])})
    data = load(tmp_path, field=3, max_tokens=3)
    good, bad = data.train.inputs
    assert (good[1], data.test.inputs[0, 0]) == (bad[1], good[0])
    assert good[0] != bad[0]
    assert data.test.owners is not None
    assert data.test.owners[0] not in data.train.owners
    with pytest.raises(
        DataError, match=r"a\.json, user ann, sample 0: x is a list of 4 texts; say which of them is read"
    ):
        load(tmp_path)
    with pytest.raises(DataError, match=r"a\.json, user ann, sample 0: x has no text at data\.dataset\.field=7"):
        load(tmp_path, field=7)


GOOD: Samples = {"u": ([[0.1, 0.2], [0.3, 0.4]], [0, 1])}


@pytest.mark.parametrize(
    ("samples", "changes", "line"),
    [
        (GOOD, {"user_data": {}}, r"a\.json: user_data has no lists x and y of user 'u'; write it as LEAF does"),
        (GOOD, {"users": ["v"]}, r"a\.json: user_data has 1 user\(s\) that users does not name \('u'\)"),
        (GOOD, {"users": ["u", "u"], "num_samples": [2, 2]}, r"a\.json: user 'u' stands 2 times in users"),
        (
            {"u": (["a.jpg", "b.jpg"], [0, 1])},
            {},
            r"a\.json, user u, sample 0: column 'x' has names of files \(a\.jpg\)",
        ),
        ({"u": ([0.1, 0.2], [{"next": 1}, {"next": 2}])}, {}, r"a\.json: column 'y' is struct.* can be no label"),
        ({"u": (["ab", "\ud800"], [0, 1])}, {}, r"a\.json: x has half a character"),
        (GOOD, {"num_samples": [3]}, r"a\.json: user 'u' has 2 x and 2 y, num_samples says 3"),
        (GOOD, {"num_samples": []}, r"a\.json: 1 users and 0 num_samples"),
        (GOOD, {"user_data": None}, r"a\.json: no user_data; write it as LEAF does"),
        ({"u": ([[0.1], [0.2, 0.3]], [0, 1])}, {}, r"a\.json, user u, sample 1: column 'x' has a list of 2 values"),
        ({"u": ([[0.1], None], [0, 1])}, {}, r"a\.json, user u, sample 1: column 'x' is empty \(null\)"),
        ({"u": ([[0.1], [0.2]], [0, None])}, {}, r"a\.json, user u, sample 1: column 'y' is empty \(null\)"),
        ({"u": ([[0.1], "text"], [0, 1])}, {}, r"a\.json: x is not of one type in all samples"),
        ({"u": ([[0.1], [0.2]], [-1, 1])}, {}, None),
    ],
)
def test_a_wrong_file_is_one_line(samples: Samples, changes: dict[str, Any], line: str | None, tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.json", samples, **changes)
    if line is None:  # classes may have any numbers where they do not begin at 0
        assert load(tmp_path, test_fraction=0.5).class_names == ("-1", "1")
        return
    with pytest.raises(DataError, match=line):
        load(tmp_path)


def test_users_without_samples_are_no_clients_and_large_labels_no_indices(tmp_path: Path) -> None:
    empty: Samples = {"v": ([], [])}
    write(tmp_path / "train" / "a.json", empty)
    write(tmp_path / "train" / "b.json", GOOD, users=["u", "w"], num_samples=[2.0, 0])
    write(tmp_path / "train" / "c.json", {"x": ([[1, 2], [3, 4]], [0, 1])})
    data = load(tmp_path, test_fraction=0.5)
    assert (len(data.train) + len(data.test), data.class_names) == (4, ("0", "1"))
    write(tmp_path / "train" / "b.json", {"u": (GOOD["u"][0], [7, 10**9])})
    write(tmp_path / "train" / "c.json", {"x": ([[1, 2], [3, 4]], [7, 10**9])})
    assert load(tmp_path, test_fraction=0.5).class_names == ("7", "1000000000")


def test_what_is_not_there_or_no_pixels_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "deep" / "a.json", GOOD)
    with pytest.raises(
        DataError, match=r"leaf: not found, .*1 JSON file that no split.*place LEAF's .*/train/\*\.json"
    ):
        load(tmp_path)
    write(tmp_path / "train" / "a.json", GOOD)
    with pytest.raises(ConfigError, match=r"pixels=\[2, 2\]: needs rows of 4 numbers, these are arrays \[2\]"):
        load(tmp_path, pixels=[2, 2])
    write(tmp_path / "train" / "a.json", {"u": ([[1.0, 2.0], [0.0, 0.5]], [0, 1])})
    with pytest.raises(DataError, match=r"train split has values 0\.\.2, pixels are in 0\.\.1"):
        load(tmp_path, pixels=[1, 2])
    (tmp_path / "train" / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: not a readable JSON file"):
        load(tmp_path)
