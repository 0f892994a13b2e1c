"""`fedbench data`."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Finished, write_cifar10
from PIL import Image

Call = Callable[..., Finished]


def report(call: Call, *arguments: str) -> dict:
    finished = call("data", "--json", *arguments)
    assert (finished.status, finished.stderr) == (0, "")
    return json.loads(finished.stdout)


def test_digits_come_with_scikit_learn(call: Call) -> None:
    found = report(call, "digits")
    assert found["rows"] == {"train": 1438, "test": 359}
    assert found["shape"] == [8, 8, 1]
    assert (found["files"], found["bytes"], found["written"]) == (0, 0, False)
    refused = call("data", "digits", "--root", "somewhere")
    assert (refused.status, refused.stdout) == (2, "")
    assert "--root=somewhere: has no effect with data.dataset=digits" in refused.stderr
    words = call("data", "digits").stdout
    for expected in ("1,438 train, 359 test", "8x8x1", "10: 0, 1, 2", found["fingerprint"]):
        assert expected in words


def test_parquet_that_is_there_is_checked_and_described(call: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = write_cifar10(tmp_path_factory.mktemp("root"))
    found = report(call, "cifar10", "--root", str(root))
    assert found["rows"] == {"train": 40, "test": 20}
    assert found["class_names"][:2] == ["airplane", "automobile"]
    files = list((root / "cifar10").iterdir())
    assert (found["files"], found["bytes"]) == (2, sum(file.stat().st_size for file in files))
    assert not found["written"]


def test_a_tree_of_images_becomes_parquet_that_a_run_reads(
    call: Call, tmp_path_factory: pytest.TempPathFactory, run_folder: Path
) -> None:
    tree, root = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for kind in ("moss", "lichen"):
            (tree / split / kind).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tree / split / kind / f"{index}.png")
    found = report(call, "plants", "--root", str(root), "--source", str(tree))
    assert found["rows"] == {"train": 24, "test": 8}
    assert found["class_names"] == ["lichen", "moss"]
    assert found["written"]
    assert {path.name for path in (root / "plants").iterdir()} == {
        "train-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    }
    again = report(call, "plants", "--root", str(root))
    assert again == found | {"written": False}
    assert (
        "fedbench run PRESET data.dataset=images data.dataset.folder=plants"
        in call("data", "plants", "--root", str(root)).stdout
    )

    small = ("data.clients=2", "model.width=2", "rounds=1", "runtime.executor=inline", "tracking.enabled=false")
    finished = call("run", "--json", *found["overrides"], *small)
    assert finished.status == 0, finished.stderr
    assert json.loads(finished.stdout)["rounds"] == 1


def test_what_messages_and_the_last_line_say_can_be_typed(call: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("table")
    rows = {"age": [1, 2] * 10, "blood pressure": [0.5] * 20, "born": ["may"] * 20, "label": ["a", "b"] * 10}
    pq.write_table(pa.table(rows), root / "train.parquet")
    inputs = '[age, "blood pressure"]'
    unclear = call("data", "parquet", "--root", str(root)).stderr
    assert "set data.dataset.inputs=COLUMN" in unclear
    finished = call("data", "parquet", f"data.dataset.inputs={inputs}", "--root", str(root))
    assert finished.status == 0, finished.stderr
    *_, last = finished.stdout.splitlines()
    assert shlex.split(last)[2:] == ["fedbench", "run", "PRESET", "data.dataset=parquet",
                                     f"data.dataset.inputs={inputs}", f"data.root={root}"]  # fmt: skip
    for text, message in (
        ("data.root=x", "the folder that holds the data sets is given as --root x"),
        ("model.width=3", "model.width=3: is no parameter of a data set"),
    ):
        assert message in call("data", "parquet", text).stderr
    assert (
        "is a file; name the folder that holds it" in call("data", "parquet", "--root", f"{root}/train.parquet").stderr
    )


def test_a_folder_of_other_rows_than_images_names_what_reads_them(
    call: Call, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "reviews").mkdir()
    for split in ("train", "test"):
        table = pa.table({"text": [f"{split} good", f"{split} bad"] * 5, "label": [0, 1] * 5})
        pq.write_table(table, root / "reviews" / f"{split}.parquet")
    refused = call("data", "reviews", "--root", str(root))
    assert (refused.status, refused.stderr.count("\n")) == (2, 1)
    for expected in (
        "none of its columns holds images: text (string), label (int64)",
        "data.dataset=parquet data.dataset.folder=reviews",
        "fedbench data parquet folder=reviews",
    ):
        assert expected in refused.stderr
    assert report(call, "parquet", "folder=reviews", "--root", str(root))["task"] == "classification"
