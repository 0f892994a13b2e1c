"""Numbers that are larger than floating-point numbers resolve: exact as classes, refused where differences are lost."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data.base import FederatedData
from fedbench.data.parquet_dataset import ParquetDataset
from fedbench.errors import ConfigError, DataError

ROWS = 40
WEIGHT = np.linspace(0.0, 1.0, ROWS)
LABEL = ["no", "yes"] * (ROWS // 2)
SECOND = 1_700_000_000
"""A time of November 2023, in seconds since 1970; float32 has one number in 128 there."""


def load(root: Path, columns: dict[str, object], **parameters: object) -> FederatedData:
    pq.write_table(pa.table(columns), root / "train.parquet")
    return ParquetDataset(**parameters).load(root, test_fraction=None, seed=0)


def test_whole_numbers_are_classes_and_owners_as_they_are(tmp_path: Path) -> None:
    numbers = [2**60 + row % 2 for row in range(ROWS)]  # alike in float64
    data = load(tmp_path, {"weight": WEIGHT, "label": numbers, "owner": numbers}, owner="owner")
    assert data.class_names == (str(2**60), str(2**60 + 1))
    assert np.array_equal(data.train.labels, data.train.owners)
    assert set(data.train.labels) == {0, 1}


@pytest.mark.parametrize(
    "values",
    [
        SECOND + np.arange(ROWS),
        (SECOND + np.arange(ROWS)).astype(np.float64),
        2**60 + np.arange(ROWS),  # alike in float64, too
        np.uint64(2**64 - 1) - np.arange(ROWS, dtype=np.uint64),
    ],
)
def test_inputs_that_float32_takes_for_alike_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'time' has values up to .* float32 rounds them by up to .*; subtract"):
        load(tmp_path, {"time": values, "weight": WEIGHT, "label": LABEL})
    with pytest.raises(DataError, match=r"column 'time' .*; subtract"):
        load(tmp_path, {"time": [[value] for value in values], "label": LABEL})


def test_targets_that_float32_takes_for_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'target' .*; subtract"):
        load(tmp_path, {"weight": WEIGHT, "target": SECOND + np.arange(ROWS) / 2})


def test_large_numbers_that_differ_by_much_or_not_at_all_are_read(tmp_path: Path) -> None:
    hours = SECOND + 3600 * np.arange(ROWS)
    data = load(tmp_path, {"time": hours, "same": [2**60 + 1] * ROWS, "label": LABEL})
    assert data.train.inputs.shape == (len(data.train.inputs), 2)


def test_a_vocabulary_without_a_token_and_a_list_without_a_column_are_refused(tmp_path: Path) -> None:
    texts = {"text": ["a word"] * ROWS, "label": LABEL}
    with pytest.raises(
        DataError, match=r"^data.dataset.min_frequency=50: no token of the training split occurs so often"
    ):
        load(tmp_path, texts, min_frequency=50)
    with pytest.raises(ValueError, match=r"inputs=\[\]: names no column"):
        load(tmp_path, texts, inputs=[])


def test_owners_of_one_row_each_leave_nothing_to_hold_out(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds out none of the 40 rows, since each is the only one of its class or "
    ):
        load(tmp_path, {"weight": WEIGHT, "label": LABEL, "user": list(range(ROWS))})
