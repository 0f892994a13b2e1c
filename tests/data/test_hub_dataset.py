"""Data sets as the library datasets reads them: folders, and the cache of the Hub."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_hub import serving

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


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A hub with clinic/ages, clinic/parts (two parts) and clinic/odd (damaged); its address, and what it is asked."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("ages/data", "parts/a", "parts/b", "odd"):
        (folder / "clinic" / name).mkdir(parents=True)
    for split, count in (("train", 20), ("test", 6), ("unsupervised", 4)):
        table = pa.table({"age": list(range(count)), "label": ["ill", "well"] * (count // 2)})
        pq.write_table(table, folder / "clinic/ages/data" / f"{split}-00000-of-00001.parquet")
        pq.write_table(table, folder / "clinic/parts" / ("a" if split == "train" else "b") / "train.parquet")
    card = "".join(f"- config_name: {part}\n  data_files: {part}/train.parquet\n" for part in "ab")
    (folder / "clinic/parts/README.md").write_text(f"---\nconfigs:\n{card}---\n", encoding="utf-8")
    (folder / "clinic/odd/train.parquet").write_bytes(b"damaged")
    with serving(folder) as served:
        yield served


@pytest.fixture
def network(
    hub: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """The Hub's place is that of `hub`, and nothing is in the caches; call it with another address to go elsewhere."""
    constants = pytest.importorskip("huggingface_hub").constants

    def ask(address: str) -> None:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloads"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    ask(hub[0])
    hub[1].clear()
    yield ask
    hub[1].clear()


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


COMMIT = "0123456789" * 4


def test_a_data_set_of_the_hub_is_downloaded_once_and_its_commit_is_on_record(
    hub: tuple[str, list[str]], network: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("hf:clinic/ages")
    assert data.source == f"the Hugging Face data set clinic/ages (commit {COMMIT}) (inputs age; label label)"
    assert data.train.inputs.ravel().tolist() == list(range(20))
    assert (len(data.test), data.remarks) == (6, ("splits that are not used: unsupervised",))
    assert any(path.endswith("train-00000-of-00001.parquet") for path in hub[1])
    hub[1].clear()
    assert load("hf:clinic/ages", revision="v1").fingerprint == data.fingerprint
    assert not any(path.endswith(".parquet") for path in hub[1])
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub[1].clear()
        assert load("hf:clinic/ages").remarks == data.remarks
        with pytest.raises(
            DataError, match=r"hf:clinic/none: HF_HUB_OFFLINE is set, and the cache .* does not have it"
        ):
            load("hf:clinic/none")
    network("http://127.0.0.1:9")
    cached = load("hf:clinic/ages", revision=COMMIT)
    assert cached.fingerprint == data.fingerprint
    assert "the Hub at http://127.0.0.1:9 does not answer" in " ".join(cached.remarks)
    with pytest.raises(
        DataError, match=rf"revision=v2: the Hub .* and the cache has the commit {COMMIT} of hf:clinic/a"
    ):
        load("hf:clinic/ages", revision="v2")
    with pytest.raises(
        DataError, match=r"hf:clinic/none: the Hub at .* does not answer .*, and the cache .* not have it"
    ):
        load("hf:clinic/none")
    assert hub[1] == []


@pytest.mark.parametrize(
    ("name", "parameters", "line"),
    [
        ("none", {}, r"hf:clinic/none: no such data set on the Hub, or none that is open to you"),
        ("ages", {"revision": "v7"}, r"hf:clinic/ages: no such data set on the Hub.*Revision 'v7' doesn't exist"),
        ("parts", {}, r"hf:clinic/parts: has several parts: a, b; set data\.dataset\.subset=NAME"),
        ("parts", {"subset": "c"}, r"data\.dataset\.subset=c: hf:clinic/parts has no such part; found a, b"),
        ("odd", {}, r"hf:clinic/odd: cannot be loaded \(Parquet file size is 7 bytes"),
    ],
)
@pytest.mark.usefixtures("network")
def test_what_the_hub_does_not_have_is_one_line(
    name: str, parameters: dict[str, str], line: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    for library in map(logging.getLogger, ("datasets", "huggingface_hub")):
        library.addHandler(caplog.handler)
        request.addfinalizer(partial(library.removeHandler, caplog.handler))
    with pytest.raises(DataError, match=line):
        load(f"hf:clinic/{name}", **parameters)
    assert caplog.records == []


@pytest.mark.usefixtures("network")
def test_a_part_is_named_in_the_source() -> None:
    assert f"clinic/parts (a, commit {COMMIT})" in load("hf:clinic/parts", subset="a").source


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.components.optional_library.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data\.dataset=hf:\.\.\. needs the library datasets, .*\[huggingface\]"):
        load("hf:owner/name")
