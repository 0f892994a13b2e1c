"""Series of measurements that come with statsmodels: windows, splits by time, natural clients."""

import csv
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from fedbench.components.catalogue import make_component
from fedbench.config.experiment import ExperimentConfig
from fedbench.data.base import Dataset, FederatedData
from fedbench.data.contract import check_data
from fedbench.data.statsmodels_series import Co2, Measurements
from fedbench.errors import ConfigError, DataError
from fedbench.experiment.federation import load_federation

pytest.importorskip("statsmodels", reason="the extra series is not installed")


def load(name: str, test_fraction: float | None = None, **parameters: object) -> FederatedData:
    dataset = make_component("dataset", Dataset, {"name": name, **parameters})
    return check_data(dataset, dataset.load(None, test_fraction=test_fraction, seed=0))


def weeks() -> list[tuple[int, float]]:
    """(year, value or NaN) of each week, from the file of statsmodels, by the csv module."""
    package = importlib.util.find_spec("statsmodels")
    assert package is not None
    (folder,) = package.submodule_search_locations or []
    with Path(folder, "datasets/co2/co2.csv").open(newline="") as stream:
        return [(int(row["date"][:4]), float(row["co2"] or "nan")) for row in csv.DictReader(stream)]


def test_rows_are_all_windows_of_the_file_without_gaps() -> None:
    data = load("co2", window=30, horizon=3, relative=False)
    values = [value for _, value in weeks()]
    border = len(values) - round(0.2 * len(values))
    expected = [values[start : start + 33] for start in range(border - 32)]
    expected = [window for window in expected if not np.isnan(window).any()]
    rows = np.concatenate([data.train.inputs[:, 0], data.train.labels], axis=1)
    np.testing.assert_array_equal(rows, np.array(expected, np.float32))
    assert (data.kind, data.task, data.input_shape, data.class_names[-1]) == ("array", "regression", (1, 30), "week +3")


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_no_week_stands_in_two_splits(validation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.arange(300.0)
    steps[[40, 41, 150, 220, 275]] = np.nan
    monkeypatch.setattr(Co2, "read", lambda self, file: Measurements(steps[:, None], np.arange(300) // 10))
    data = load("co2", window=5, horizon=2, relative=False, validation=validation)
    splits = [data.train, *([data.validation] if data.validation else []), data.test]
    held = [set(split.inputs.ravel()) | set(split.labels.ravel()) for split in splits]
    for earlier, later in itertools.pairwise(held):
        assert max(earlier) < min(later)
    assert len(splits) == (3 if validation else 2)
    # The first forecast week says the natural client.
    np.testing.assert_array_equal(data.train.owners, data.train.labels[:, 0].astype(int) // 10)


def test_a_relative_window_begins_where_its_last_week_is_and_its_persistence_is_in_the_source() -> None:
    plain, relative = load("co2", relative=False), load("co2")
    last = plain.test.inputs[:, :, -1:].astype(np.float64)
    np.testing.assert_allclose(relative.test.inputs, plain.test.inputs - last, atol=1e-4)
    np.testing.assert_allclose(relative.test.labels, plain.test.labels - last[:, 0], atol=1e-4)
    assert not relative.test.inputs[:, :, -1].any()
    error = np.abs(plain.test.labels - last[:, 0]).mean()
    for data in (plain, relative):
        assert f"the MAE {error:.4g} on the test split" in data.source


def test_several_series_are_channels_and_natural_clients_are_decades() -> None:
    data = load("macrodata", window=8, horizon=2, period="decade")
    assert data.input_shape == (3, 8)
    assert set(np.unique(data.train.owners)) == {1960, 1970, 1980, 1990}
    np.testing.assert_allclose(np.reshape(data.std, (3, 8))[:, 0], data.train.inputs.std(axis=(0, 2)), rtol=1e-4)
    first = load("macrodata", window=2, horizon=1, relative=False)
    # Unemployment, inflation and the bill rate of the first two quarters of 1959, as the file has them.
    np.testing.assert_allclose(first.train.inputs[0], [[5.8, 5.1], [0, 2.34], [2.82, 3.08]], rtol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("data.validation_fraction=0.1",), r"data\.validation_fraction=0\.1: the windows of co2 overlap"),
        (("data.client_test_fraction=0.2",), r"data\.client_test_fraction=0\.2: the windows of co2 overlap"),
        (("data.dataset.window=600",), r"data\.dataset\.window=600, horizon=4: the 1827 weeks of the train split"),
        (("data.root=.",), r"data\.root=.*: has no effect with data\.dataset=co2, part of statsmodels"),
    ],
)
def test_what_cannot_be_done_with_windows_is_refused(overrides: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load_federation(ExperimentConfig.load("quickstart", ["data.dataset=co2", "model=mlp", *overrides]))


def test_rows_can_be_drawn_where_windows_do_not_overlap() -> None:
    overrides = ["data.dataset=co2", "data.dataset.stride=56", "data.dataset.period=decade", "model=mlp"]
    federation = load_federation(
        ExperimentConfig.load("quickstart", [*overrides, "data.clients=2", "data.validation_fraction=0.2"])
    )
    assert federation.data.validation is not None


def test_a_missing_library_or_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(Co2, "file", ("none.csv",))
        with pytest.raises(DataError, match=r"co2: the installed statsmodels has no file none\.csv"):
            Co2().check(None)
    monkeypatch.setattr("fedbench.components.optional_library.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"data\.dataset=co2 needs the library statsmodels, .*\[series\]"):
        Co2().check(None)
