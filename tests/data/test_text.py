"""AG News as token ids."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.text import AgNews, build_vocabulary, encode, tokenize
from fedbench.errors import ConfigError, DataError

TRAIN = (["The cat -- the CAT!", "a dog", "...", "the mat's dog"], [0, 1, 2, 3])
TEST = (["the bird and the dog", "a cat"], [3, 0])


@pytest.fixture(params=["ag-news", "ag_news"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / request.param).mkdir()
    for split, (texts, labels) in (("train", TRAIN), ("test", TEST)):
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / request.param / f"{split}.parquet")
    return tmp_path


def load(root: Path, **parameters: int) -> FederatedData:
    return AgNews(**parameters).load(root, test_fraction=None, seed=0)


def test_ids_follow_frequency_then_the_alphabet(root: Path) -> None:
    # Counts in training: the 3, cat 2, dog 2, a 1, mat's 1.
    data = load(root, max_tokens=5)
    assert data.train.inputs.tolist() == [[2, 3, 2, 3, 0], [5, 4, 0, 0, 0], [1, 0, 0, 0, 0], [2, 6, 4, 0, 0]]
    assert data.test.inputs.tolist() == [[2, 1, 1, 2, 4], [5, 3, 0, 0, 0]]
    assert data.train.inputs.dtype == np.int32
    assert data.train.labels.tolist() == [0, 1, 2, 3]
    assert (data.vocabulary_size, data.padding_index, data.kind) == (7, 0, "text")
    assert data.input_shape == (5,)
    assert data.class_names == ("World", "Sports", "Business", "Sci/Tech")


def test_long_texts_are_cut_and_rare_words_unknown(root: Path) -> None:
    data = load(root, max_tokens=2, min_frequency=2)
    assert data.train.inputs.tolist() == [[2, 3], [1, 4], [1, 0], [2, 1]]
    assert data.vocabulary_size == 5


def test_the_default_length_is_64(root: Path) -> None:
    assert load(root).input_shape == (64,)


def test_the_vocabulary_knows_nothing_of_the_test_split(root: Path) -> None:
    before = load(root)
    (folder,) = (path for path in root.iterdir() if path.name.startswith("ag"))
    pq.write_table(pa.table({"text": ["other words", "only"], "label": [0, 1]}), folder / "test.parquet")
    after = load(root)
    np.testing.assert_array_equal(before.train.inputs, after.train.inputs)
    assert before.vocabulary_size == after.vocabulary_size
    assert after.test.inputs[:, 0].tolist() == [1, 1]
    assert before.fingerprint != after.fingerprint


def test_tokens_are_cached_by_parameters(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    monkeypatch.setattr("fedbench.data.text.tokenize", lambda text: 1 / 0)
    second = load(root)
    assert isinstance(second.train.inputs, np.memmap)
    assert first.fingerprint == second.fingerprint
    with pytest.raises(ZeroDivisionError):
        load(root, max_tokens=3)


def test_every_vocabulary_id_stands_for_one_token() -> None:
    texts = [tokenize(text) for text in TRAIN[0]]
    vocabulary = build_vocabulary(texts, 1)
    back = {index: token for token, index in vocabulary.items()}
    ids = encode(texts, vocabulary, 8)
    decoded = [[back[index] for index in row if index > 1] for row in ids.tolist()]
    assert decoded == texts


def test_errors_name_the_place(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_fraction has no effect: ag-news"):
        AgNews().load(root, test_fraction=0.2, seed=0)
    (folder,) = (path for path in root.iterdir() if path.name.startswith("ag"))
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 4]}), folder / "test.parquet")
    with pytest.raises(DataError, match=r"test\.parquet, row 1: column 'label': label 4, expected 0\.\.3"):
        load(root)
    pq.write_table(pa.table({"text": ["a", None], "label": [0, 1]}), folder / "test.parquet")
    with pytest.raises(DataError, match=r"test\.parquet, row 1: column 'text' is empty"):
        load(root)
    (folder / "test.parquet").unlink()
    with pytest.raises(DataError, match="no test split"):
        load(root)


def test_real_ag_news_gives_a_plausible_vocabulary(real_data: Path) -> None:
    if not (real_data / "ag_news").is_dir():
        pytest.skip("no AG News among the real data")
    data = load(real_data)
    assert len(data.test) == 7600
    assert np.bincount(data.test.labels).tolist() == [1900] * 4
    assert 20_000 < data.vocabulary_size < 60_000
    assert data.train.inputs.max() < data.vocabulary_size
    # Ids go by frequency: "the" is the most frequent word of English news.
    counts = np.bincount(data.train.inputs.ravel(), minlength=data.vocabulary_size)
    assert counts[2:].argmax() == 0
    assert (data.train.inputs[:, 0] != 0).all()
