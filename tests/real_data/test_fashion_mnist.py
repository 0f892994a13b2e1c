"""Presets on the real data that they are made for, cut down to seconds."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedbench import ExperimentConfig, Result, run
from fedbench.experiment.federation import load_federation
from fedbench.experiment.setup import Problem, build_problem
from fedbench.planning.schedules import Feedback

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("run_folder")]

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
