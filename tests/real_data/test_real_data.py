"""The real data has its published counts and statistics, and presets run on it, cut down to seconds."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedbench import ExperimentConfig, Result, run
from fedbench.data.images import Cifar10, FashionMnist
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import Problem, build_problem
from fedbench.planning.schedules import Feedback

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run_folder", "flops_counted_once")]

Load = Callable[..., ExperimentConfig]


@pytest.fixture
def load(real_data: Path) -> Load:
    """`load(preset, data_set, *overrides)`: the preset on the real data, inline and untracked."""

    def configuration(preset: str, data_set: str, *overrides: str) -> ExperimentConfig:
        if not any((real_data / folder).is_dir() for folder in (data_set, data_set.replace("-", "_"))):
            pytest.skip(f"no {data_set} under {real_data}")
        inline = ("runtime.executor=inline", "tracking.enabled=false")
        return ExperimentConfig.load(preset, [f"data.root={real_data}", *inline, *overrides])

    return configuration


def problem_of(config: ExperimentConfig) -> Problem:
    return build_problem(config, load_federation(config))


def final_vector(result: Result, problem: Problem) -> np.ndarray:
    """The final parameters in layout order."""
    tensors = {name: tensor.numpy() for name, tensor in result.state_dict().items()}
    return problem.layout.flatten({slot.name: tensors[slot.name] for slot in problem.layout.slots})


FASHION = (
    "data.clients=4", "data.samples_per_client=500", "local.epochs=1",
    "schedule.warmup_rounds=3", "schedule.rounds_per_group=1", "schedule.cycles=1",
)  # fmt: skip


def test_fedpart_learns_fashion_mnist(load: Load) -> None:
    """Three full and four partial rounds on 2,000 images: 0.56 after the full ones, 0.66 at the end; chance is 0.1."""
    result = run(load("fedpart-fashion-mnist", "fashion-mnist", *FASHION, "evaluation.every=3"))
    assert result.history["group"].to_pylist() == [-1, -1, -1, 0, 1, 2, 3]
    assert result.summary["final_accuracy"] > 0.5
    assert result.summary["final_accuracy"] > result.history["test_accuracy"][2].as_py()
    full = result.summary["full_updates"]
    assert result.summary["uplink_bytes"] < 0.6 * full["uplink_bytes"]
    assert result.summary["client_flops"] < full["client_flops"]

    names = {path.name for path in result.directory.iterdir()}
    assert {"config.yaml", "rounds.parquet", "clients.parquet", "summary.json", "model.safetensors", "plots"} <= names
    assert json.loads((result.directory / "summary.json").read_text())["status"] == "finished"
    partition = pq.read_table(result.directory / "partition.parquet")
    assert partition["samples"].to_pylist() == [500] * 4
    assert "Ankle boot" in partition.column_names


@pytest.mark.usefixtures("no_figures")
def test_a_partial_round_changes_its_own_slice_alone(load: Load) -> None:
    """Two runs that differ in their last round only: what that round changed is its layer group."""
    small = ("data.samples_per_client=100", "evaluation.every=5")
    first, second = (
        load("fedpart-fashion-mnist", "fashion-mnist", *FASHION, *small, f"rounds={rounds}") for rounds in (4, 5)
    )
    problem = problem_of(second)
    before, after = (final_vector(run(config), problem) for config in (first, second))
    group = problem.config.schedule.active(4, problem.layout.groups, 0, Feedback.none(problem.layout)).groups
    assert group == (1,)
    changed = np.flatnonzero(before != after)
    active = problem.layout.slices[group[0]]
    assert active.start <= changed.min()
    assert changed.max() < active.stop
    assert len(changed) > 0.9 * (active.stop - active.start)


@pytest.mark.usefixtures("no_figures")
def test_fedpart_runs_on_cifar10(load: Load) -> None:
    result = run(
        load(
            "fedpart-cifar10", "cifar10", "data.clients=2", "data.samples_per_client=64", "model.width=8",
            "local.epochs=1", "rounds=2", "schedule.warmup_rounds=1", "evaluation.every=2",
        )
    )  # fmt: skip
    rows = result.history.to_pylist()
    assert [row["phase"] for row in rows] == ["full", "partial"]
    assert all(math.isfinite(row["train_loss"]) and row["update_norm"] > 0 for row in rows)
    assert rows[1]["test_accuracy"] == result.summary["final_accuracy"]
    assert rows[1]["uplink_bytes"] < rows[0]["uplink_bytes"] / 10


@pytest.mark.usefixtures("no_figures")
def test_fedpart_runs_on_ag_news(load: Load) -> None:
    result = run(
        load(
            "fedpart-agnews", "ag-news", "data.clients=2", "data.samples_per_client=32", "data.dataset.max_tokens=16",
            "local.epochs=1", "local.batch_size=16", "rounds=2", "schedule.warmup_rounds=1", "evaluation.every=2",
        )
    )  # fmt: skip
    rows = result.history.to_pylist()
    assert [row["phase"] for row in rows] == ["full", "partial"]
    assert all(math.isfinite(row["train_loss"]) and row["update_norm"] > 0 for row in rows)
    assert 0 < rows[1]["test_accuracy"] < 1


def test_real_cifar10_has_its_published_counts_and_statistics(real_data: Path) -> None:
    if not (real_data / "cifar10").is_dir():
        pytest.skip("no CIFAR-10 among the real data")
    data = Cifar10().load(real_data, test_fraction=None, seed=0)
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    # The first labels of the published order: frog, truck, truck, deer; cat, ship, ship, airplane.
    assert data.train.labels[:4].tolist() == [6, 9, 9, 4]
    assert data.test.labels[:4].tolist() == [3, 8, 8, 0]
    assert data.train.labels[-2:].tolist() == [1, 1]
    sample = data.train.inputs[::10] / 255
    np.testing.assert_allclose(sample.mean((0, 1, 2)), data.mean, atol=0.005)
    np.testing.assert_allclose(sample.std((0, 1, 2)), data.std, atol=0.005)


def test_real_fashion_mnist_has_its_published_counts_and_statistics(real_data: Path) -> None:
    if not (real_data / "fashion_mnist").is_dir():
        pytest.skip("no Fashion-MNIST among the real data")
    data = FashionMnist().load(real_data, test_fraction=None, seed=0)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.labels[0] == 9
    sample = data.train.inputs[::10] / 255
    assert sample.mean() == pytest.approx(data.mean[0], abs=0.005)
    assert sample.std() == pytest.approx(data.std[0], abs=0.005)
