"""Shakespeare as sequences of characters by speaking role."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.contract import check_data
from fedbench.data.shakespeare import Shakespeare
from fedbench.errors import ConfigError, DataError

SPEECHES = ["ANN:\nabcd", "BEN:\nba", "ANN:\nef"]


def load(root: Path, test_fraction: float | None = None, **parameters: Any) -> FederatedData:
    dataset = Shakespeare(**parameters)
    dataset.check(root)
    return check_data(dataset, dataset.load(root, test_fraction=test_fraction, seed=0))


def write(root: Path, text: str) -> None:
    (root / "shakespeare").mkdir(exist_ok=True)
    (root / "shakespeare" / "input.txt").write_text(text, encoding="utf-8")


def words_of(data: FederatedData, rows: np.ndarray) -> list[str]:
    return ["".join(data.class_names[token] for token in row if token > 0) for row in rows]


def test_each_role_is_a_client_and_each_character_has_the_next_as_its_label(tmp_path: Path) -> None:
    (tmp_path / "shakespeare").mkdir()
    pq.write_table(pa.table({"text": SPEECHES}), tmp_path / "shakespeare" / "train.parquet")
    pq.write_table(pa.table({"text": ["BEN:\naz", "CAT:\nab"]}), tmp_path / "shakespeare" / "test.parquet")
    data = load(tmp_path, length=4)
    assert (data.kind, data.task) == ("text", "next_token")
    assert data.class_names == ("<padding>", "<unknown>", "\n", "a", "b", "c", "d", "e", "f")
    assert data.vocabulary_size == data.outputs == 9
    assert words_of(data, data.train.inputs) == ["abcd", "\ne", "b"]
    assert words_of(data, np.maximum(data.train.labels, 0)) == ["bcd\n", "ef", "a"]
    assert (data.train.labels == -100).sum(axis=1).tolist() == [0, 2, 3]
    assert data.train.owners.tolist() == [0, 0, 1]
    # The test split's z is unknown, and CAT is a client of its own.
    assert data.test.labels[:, 0].tolist() == [1, 4]
    assert data.test.owners.tolist() == [1, 2]
    assert "natural clients: speaking roles" in data.source


def test_without_a_test_split_the_end_of_what_each_role_says_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, "ANN:\n" + "abcdefghij" * 10 + "\n\nBEN:\n" + "xy" * 50 + "\n")
    data = load(tmp_path, length=10)
    assert [set("".join(words_of(data, data.train.inputs[data.train.owners == role]))) for role in (0, 1)] == [
        set("abcdefghij"),
        set("xy"),
    ]
    characters = [int((split.labels >= 0).sum()) for split in (data.train, data.test)]
    assert characters == [2 * 79, 2 * 19]
    assert not data.test_split_by_seed
    assert "the last 0.2 of each client's text held out" in data.source
    assert [int((split.labels >= 0).sum()) for split in (load(tmp_path, 0.5, length=10).test,)] == [2 * 49]


def test_a_text_without_roles_is_cut_into_contiguous_pieces_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "To be or not to be, that is the question.\n\n" * 30)
    data = load(tmp_path, length=10)
    assert "100 contiguous pieces of the text, since it names no roles" in data.source
    assert len(np.unique(data.train.owners)) == 100
    write(tmp_path, "\n\n".join(SPEECHES * 20))
    assert "natural clients: 5 contiguous pieces of the text" in load(tmp_path, length=5, chunks=5).source
    with pytest.raises(ConfigError, match=r"data\.dataset\.chunks=5000: the text of"):
        load(tmp_path, chunks=5000)


def test_a_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "A:")
    with pytest.raises(DataError, match="no text of the train split has two tokens or more"):
        load(tmp_path)
    (tmp_path / "shakespeare" / "input.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"input\.txt: cannot be read as UTF-8 text"):
        load(tmp_path)


def test_the_real_text_has_the_roles_of_its_blocks(real_data: Path) -> None:
    if not (real_data / "tinyshakespeare").is_dir():
        pytest.skip("no tinyshakespeare among the real data")
    data = load(real_data)
    assert data.input_shape == (80,)
    assert data.vocabulary_size == 67  # 65 characters, padding, unknown
    blocks = pq.read_table(real_data / "tinyshakespeare" / "train-00000-of-00001.parquet")["text"].to_pylist()
    roles = {block.strip("\n").partition(":")[0] for block in blocks}
    # A few roles say nothing, or a single character.
    assert 0.95 * len(roles) <= len(np.unique(data.train.owners)) <= len(roles)
