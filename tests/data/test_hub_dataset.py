"""Data sets as the library datasets reads them: folders, and the cache of the Hub."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Finished, start
from PIL import Image

from fedbench.components.catalogue import make_component
from fedbench.data.base import Dataset, FederatedData
from fedbench.data.contract import check_data
from fedbench.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets", reason="the extra huggingface is not installed")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the library, of this test alone."""
    cache = tmp_path_factory.mktemp("hub-cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


def load(name: str, root: Path | None = None, test_fraction: float | None = None, **parameters: Any) -> FederatedData:
    dataset = make_component("dataset", Dataset, {"name": name, **parameters})
    dataset.check(root)
    return check_data(dataset, dataset.load(root, test_fraction=test_fraction, seed=0))


def rows(count: int) -> Any:
    features = datasets.Features(
        spectrogram=datasets.Array2D((3, 4), "float32"),
        label=datasets.ClassLabel(names=["low", "high"]),
        site=datasets.Value("string"),
    )
    values = np.random.default_rng(count).normal(size=(count, 3, 4))
    return datasets.Dataset.from_dict(
        {"spectrogram": values.tolist(), "label": [0, 1] * (count // 2), "site": ["x", "y"] * (count // 2)}, features
    )


def test_a_saved_data_set_is_what_its_parquet_is(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=rows(20), test=rows(6))
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load("hf:saved", tmp_path, inputs="spectrogram", owner="site")
    assert (data.task, data.class_names, data.input_shape) == ("classification", ("low", "high"), (3, 4))
    np.testing.assert_array_equal(data.train.inputs, np.array(rows(20)["spectrogram"], np.float32))
    assert data.train.owners.tolist() == [0, 1] * 10
    assert data.source == "the folder saved (inputs spectrogram; label label; owner site)"
    for split, part in saved.items():
        part.to_parquet(str(tmp_path / f"{split}.parquet"))
    same = load("parquet", tmp_path, inputs="spectrogram", owner="site")
    assert same.fingerprint == data.fingerprint


def test_a_folder_of_images_is_read_where_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        folder = tmp_path / "pets" / ("test" if index < 2 else "train") / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    data = load(f"hf:{tmp_path / 'pets'}")
    assert (data.kind, data.class_names) == ("image", ("cat", "dog"))
    assert sorted(map(bytes, data.train.inputs)) == sorted(map(bytes, pixels[2:]))


def test_wrong_rows_and_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    pq.write_table(pa.table({"x": [[1.0], [2.0], None], "label": [0, 1, 1]}), tmp_path / "mine" / "train.parquet")
    with pytest.raises(DataError, match=r"^hf:mine, train split, row 2: column 'x' is empty \(null\)"):
        load("hf:mine", tmp_path)
    with pytest.raises(DataError, match=r"^data\.dataset=hf:yours: no such folder .*; for a data set of the Hub leave"):
        load("hf:yours", tmp_path)
    with pytest.raises(ConfigError, match=r"data\.dataset\.revision=main: has no effect, .* is a folder"):
        load("hf:mine", tmp_path, revision="main")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the library datasets cannot read it"):
        load("hf:empty", tmp_path)


def test_a_name_is_looked_for_in_the_cache_where_the_hub_is_not_to_be_asked(tmp_path: Path, hub_cache: Path) -> None:
    """The cache as loading from the Hub leaves it; the library reads its settings when it is imported."""
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.table({"age": list(range(20)), "label": ["a", "b"] * 10}), source / "train.parquet")
    datasets.load_dataset(str(source), cache_dir=str(hub_cache))
    (info,) = hub_cache.rglob("dataset_info.json")
    kept = hub_cache / "clinic___ages" / "default" / "0.0.0" / "0123456789abcdef"
    shutil.copytree(info.parent, kept)
    (arrow,) = kept.glob("*-train.arrow")
    arrow.rename(kept / "ages-train.arrow")
    facts = json.loads((kept / "dataset_info.json").read_text())
    (kept / "dataset_info.json").write_text(json.dumps(facts | {"dataset_name": "ages", "config_name": "default"}))
    settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(hub_cache)}

    def report(name: str) -> Finished:
        process = start(tmp_path, "data", name, "--json", **settings)
        stdout, stderr = process.communicate(timeout=120)
        return Finished(process.returncode, stdout, stderr)

    finished = report("hf:clinic/ages")
    assert finished.status == 0, finished.stderr
    assert json.loads(finished.stdout)["rows"] == {"train": 16, "test": 4}
    missing = report("hf:clinic/none")
    assert (missing.status, missing.stdout) == (2, "")
    assert "HF_HUB_OFFLINE is set, and the cache" in missing.stderr
    assert missing.stderr.count("\n") == 1


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.components.optional_library.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data\.dataset=hf:\.\.\. needs the library datasets, .*\[huggingface\]"):
        load("hf:owner/name")
