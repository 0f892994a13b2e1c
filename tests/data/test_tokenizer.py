"""Text columns by the tokenizer of a model folder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import TEST, TRAIN, cache_in
from model_folders import TEXTS, add_tokenizer

from fedbench.components.model_folder import tokenizer_digest
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import FederatedData
from fedbench.errors import ConfigError
from fedbench.experiment.federation import load_federation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in Parquet, in the folder notes, and a tokenizer in the folder model."""
    place = tmp_path_factory.mktemp("texts")
    for name in ("notes", "model"):
        (place / name).mkdir()
    add_tokenizer(place / "model")
    for name, rows in ((TRAIN, 16), (TEST, 8)):
        table = pa.table({"text": [TEXTS[row % 4] for row in range(rows)], "label": np.arange(rows) % 4})
        pq.write_table(table, place / "notes" / name)
    return place


def loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> FederatedData:
    monkeypatch.setenv("FEDBENCH_CACHE", cache_in(tmp_path / "cache"))
    settings = ["data.dataset=parquet", "data.dataset.folder=notes", f"data.root={folder}", "data.clients=2"]
    tokenizer = f"data.dataset.tokenizer=hf:{folder / 'model'}"
    return load_federation(ExperimentConfig.load(None, [*settings, tokenizer, *overrides])).data


def test_a_text_column_has_the_tokens_of_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = loaded(folder, tmp_path, monkeypatch, "data.dataset.max_tokens=6")
    assert (data.kind, data.task, data.padding_index) == ("text", "classification", 0)
    assert data.tokenizer == tokenizer_digest(folder / "model")
    assert data.train.inputs.shape == (16, 6)
    np.testing.assert_array_equal(data.train.inputs[:4], data.train.inputs[4:8])


def test_the_next_token_is_one_of_the_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = loaded(folder, tmp_path, monkeypatch, "data.dataset.max_tokens=3", "data.dataset.label=[]")
    assert (data.task, data.outputs) == ("next_token", data.vocabulary_size)
    following, labels = data.train.inputs[:, 1:], data.train.labels[:, :-1]
    there = following != data.padding_index
    np.testing.assert_array_equal(following[there], labels[there])
    assert (data.train.labels[data.train.inputs == data.padding_index] == -100).all()
    first = "".join(data.class_names[token].removeprefix("##") for token in data.train.inputs[0])
    assert TEXTS[0].replace(" ", "").startswith(first)


def test_a_second_way_to_cut_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"tokens=characters: has no effect with a tokenizer; leave it out$"):
        loaded(folder, tmp_path, monkeypatch, "data.dataset.tokens=characters")
