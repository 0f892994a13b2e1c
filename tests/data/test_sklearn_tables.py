"""Tables that come with scikit-learn."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from fedbench.data.contract import check_data
from fedbench.data.sklearn_tables import BreastCancer, CaliforniaHousing, Diabetes, SklearnTable
from fedbench.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("dataset", "task", "bunch"),
    [
        (BreastCancer(), "classification", load_breast_cancer()),
        (Diabetes(), "regression", load_diabetes(scaled=False)),
    ],
)
def test_every_row_of_the_table_is_in_one_of_the_splits(dataset: SklearnTable, task: str, bunch: dict) -> None:
    data = check_data(dataset, dataset.load(None, test_fraction=0.25, seed=3))
    assert (data.kind, data.task) == ("array", task)
    rows = np.concatenate([data.train.inputs, data.test.inputs])
    labels = np.concatenate([data.train.labels.ravel(), data.test.labels.ravel()])
    together = np.column_stack([rows, labels]).astype(np.float32)
    expected = np.column_stack([bunch["data"], bunch["target"]]).astype(np.float32)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, expected.tolist()))
    assert len(data.test) == pytest.approx(0.25 * len(expected), abs=1)
    np.testing.assert_allclose(data.mean, data.train.inputs.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(data.std, data.train.inputs.astype(np.float64).std(axis=0))
    assert data.fingerprint != dataset.load(None, test_fraction=0.25, seed=4).fingerprint
    with pytest.raises(ConfigError, match=r"data\.root=somewhere: has no effect"):
        dataset.check(Path("somewhere"))


def test_california_housing_is_read_from_the_cache_of_scikit_learn_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"california-housing: not in scikit-learn's cache .*fetch_california_housing"):
        CaliforniaHousing().check(None)
    # Rows in the cache's own layout, synthetic: price, income, age, rooms, bedrooms, population, households, places.
    joblib.dump(np.random.default_rng(0).uniform(1, 9, (50, 9)), tmp_path / "cal_housing_py3.pkz", compress=6)
    dataset = CaliforniaHousing()
    dataset.check(None)
    data = check_data(dataset, dataset.load(None, test_fraction=None, seed=0))
    assert (data.task, data.class_names, data.input_shape) == ("regression", ("median price",), (8,))
    (tmp_path / "cal_housing_py3.pkz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="scikit-learn cannot read its cache"):
        dataset.load(None, test_fraction=None, seed=0)
