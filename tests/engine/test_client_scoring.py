"""Clients scored on their held-out rows, before and after their training: what is scored, and on what."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_tasks
import torch
from broken_runs import BreakAfter, Broken, tables
from recording_model import SEEN
from small import asynchronous, config
from torch.nn.functional import cross_entropy
from warm_pools import WarmPools

from fedbench import resume
from fedbench.config.experiment import ExperimentConfig
from fedbench.errors import ConfigError
from fedbench.experiment.estimate import estimate
from fedbench.experiment.federation import load_federation
from fedbench.experiment.result import Result
from fedbench.experiment.run import prepared, run
from fedbench.experiment.setup import build_problem
from fedbench.records.client_scores import (
    CLIENT_FIGURES,
    CLIENT_SCORES,
    SCORE_COLUMNS,
    SCORE_FIGURES,
    SPREAD,
    accuracy_spread,
)
from fedbench.records.reader import load_description
from fedbench.records.recorded_run import read_run
from fedbench.studies.metrics import OBJECTIVES, measure
from fedbench.suites.cell_values import QUANTITIES, Measure, read
from fedbench.tasks.kinds import TASKS, TaskName

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures")

HELD_OUT = "data.client_test_fraction=0.25"
SAMPLED = ("data.clients=6", "participation.clients_per_round=3", "rounds=3")
SKEWED = ("data.partition=dirichlet", "data.partition.alpha=0.5")


def inline(*overrides: str) -> ExperimentConfig:
    return config("runtime.executor=inline", HELD_OUT, *SAMPLED, *overrides)


def scores_of(result: Result) -> pa.Table:
    return pq.read_table(result.directory / CLIENT_SCORES)


def test_no_client_trains_on_a_held_out_row() -> None:
    """The images that a network is given in training mode, in a real run with clients that share rows."""
    SEEN.clear()
    settings = inline(
        "model=recording_model:Recording", "schedule=full", "data.overlap=true", "data.samples_per_client=90"
    )
    run(settings)
    federation = load_federation(settings)
    images = federation.data.train.inputs
    held_out = {images[row].tobytes() for row in np.concatenate(federation.test_rows)}
    may_train = {images[row].tobytes() for row in np.concatenate(federation.rows)}
    assert len(SEEN) > 100
    assert may_train >= SEEN
    assert not (held_out - may_train) & SEEN


@pytest.mark.parametrize("overrides", [(), ("local.batchnorm=local",), ("runtime.slots=2",)])
def test_scores_are_those_of_plain_pytorch(overrides: tuple[str, ...]) -> None:
    """Before: the model that a participant starts from; global: the one after the round. Read from the executor."""
    with prepared(inline(*overrides)) as (problem, executor):
        federation, spec = problem.federation, problem.spec
        start = tuple(part.copy() for part in executor.model())
        plan = executor.plan(0)
        training = executor.train(plan)
        executor.finish()
        end = executor.model()
        after_round = executor.score_clients().scores
    own = spec.keeps_statistics
    network = Plain(problem)
    for report in training.reports:
        rows = federation.test_rows[report.client]
        expected = network.score(start[0], start[1], rows)
        assert report.held_out is not None
        assert (report.held_out.before.samples, report.held_out.before.accuracy) == (len(rows), expected[1])
        assert report.held_out.before.loss == pytest.approx(expected[0], rel=1e-5)
        assert report.held_out.after.loss < report.held_out.before.loss
    absentees = set(range(6)) - set(plan.cohort)
    assert set(after_round) == set(range(6))
    for client in absentees if own else range(6):
        expected = network.score(end[0], start[1] if own else end[1], federation.test_rows[client])
        assert after_round[client].accuracy == expected[1]
        assert after_round[client].loss == pytest.approx(expected[0], rel=1e-5)


class Plain:
    """The problem's network, scored by a few lines of PyTorch."""

    def __init__(self, problem: object) -> None:
        from fedbench.models.flat import FlatModel
        from fedbench.models.groups import build_module

        self._data = problem.federation.data.train
        self._model = FlatModel(build_module(problem.spec.model, problem.spec.task, 0), problem.layout)

    def score(self, vector: np.ndarray, statistics: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        self._model.vector.copy_(torch.from_numpy(vector))
        self._model.statistics.copy_(torch.from_numpy(statistics))
        images = torch.from_numpy(self._data.inputs[rows]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(self._data.labels[rows])
        with torch.inference_mode():
            outputs = self._model.module.eval()(images)
        return float(cross_entropy(outputs, labels)), float((outputs.argmax(1) == labels).sum()) / len(rows)


def test_with_one_participant_the_trained_model_is_the_new_global_one() -> None:
    result = run(inline("participation.clients_per_round=1", "schedule=full"))
    table = scores_of(result).to_pandas()
    participants = table[table["participant"]]
    assert len(participants) == 3
    assert (participants["after_accuracy"] == participants["global_accuracy"]).all()
    assert participants["after_loss"].to_numpy() == pytest.approx(participants["global_loss"].to_numpy(), rel=1e-4)
    by_round = {(row["round"], row["client"]): row["global_accuracy"] for _, row in table.iterrows()}
    for _, row in participants[participants["round"] > 0].iterrows():
        assert row["before_accuracy"] == by_round[row["round"] - 1, row["client"]]


def test_scoring_changes_no_model() -> None:
    every_round, at_the_end = (run(inline(f"evaluation.client_every={every}", *SKEWED)) for every in (1, 3))
    assert every_round.summary["model_sha256"] == at_the_end.summary["model_sha256"]
    assert set(scores_of(every_round)["round"].to_pylist()) == {0, 1, 2}
    assert set(scores_of(at_the_end)["round"].to_pylist()) == {2}
    for name in CLIENT_FIGURES:
        columns = [result.history.column(name).to_pylist() for result in (every_round, at_the_end)]
        assert columns[0][2] == columns[1][2] is not None
        assert columns[1][:2] == [None, None]


def test_figures_of_a_round_are_those_of_its_rows() -> None:
    result = run(inline("data.clients=25", "participation.clients_per_round=10", "rounds=2", *SKEWED))
    table = scores_of(result).to_pandas()
    for index, record in enumerate(result.history.to_pylist()):
        rows = table[table["round"] == index]
        for prefix, column in (("client_accuracy", "global"), ("client_accuracy_after", "after")):
            accuracies = rows[f"{column}_accuracy"].dropna().sort_values().to_numpy()
            worst = math.ceil(len(accuracies) / 10)
            assert record[f"{prefix}_mean"] == pytest.approx(accuracies.mean(), abs=1e-12)
            assert record[f"{prefix}_std"] == pytest.approx(accuracies.std(), abs=1e-12)
            assert record[f"{prefix}_worst_decile"] == pytest.approx(accuracies[:worst].mean(), abs=1e-12)
            assert record[f"{prefix}_worst"] == accuracies[0]
        took_part = rows["global_accuracy"][rows["participant"]].mean()
        assert record["client_accuracy_participants"] == pytest.approx(took_part, abs=1e-12)
        absent = rows["global_accuracy"][~rows["participant"]].mean()
        assert record["client_accuracy_absentees"] == pytest.approx(absent, abs=1e-12)


def test_of_no_client_nothing_is_said() -> None:
    assert accuracy_spread([]) == {"mean": None, "std": None, "worst_decile": None, "worst": None}


def test_a_run_without_held_out_rows_is_what_it_was() -> None:
    result = run(config("runtime.executor=inline", "rounds=1"))
    assert not (result.directory / CLIENT_SCORES).exists()
    assert all(result.history.column(name).null_count == 1 for name in CLIENT_FIGURES)
    values = config().to_mapping()
    del values["data"]["client_test_fraction"], values["evaluation"]["client_every"]
    from fedbench.config.identity import digest

    assert digest(values, {}) == config().digest() != config(HELD_OUT).digest()


def test_where_one_client_holds_all_rows_the_others_are_scored_all_the_same() -> None:
    settings = inline("algorithm=centralised", "rounds=2", "schedule=full")
    table = scores_of(run(settings)).to_pandas()
    assert table["client"].to_list() == [*range(6), *range(6)]
    assert not table["participant"].any()
    assert table["before_accuracy"].isna().all()
    federation = load_federation(settings)
    assert not set(federation.rows[0]) & set(np.concatenate(federation.test_rows))


def test_the_partition_table_tells_training_from_held_out_rows() -> None:
    result = run(inline("rounds=1", *SKEWED))
    federation = load_federation(inline("rounds=1", *SKEWED))
    description = load_description(result.directory)
    assert description.client_test_samples == tuple(len(rows) for rows in federation.test_rows)
    assert description.client_class_counts == federation.counts
    table = pq.read_table(result.directory / "partition.parquet")
    assert table.column_names[:4] == ["client", "samples", "test_samples", "0"]
    assert table["samples"].to_pylist() == list(federation.sizes)
    assert read_run(result.directory).description == description


def test_the_cost_of_scoring_is_foreseen() -> None:
    """Counted here row by row from what a run has recorded."""
    settings = inline("evaluation.client_every=2", *SKEWED)
    cost = next(cost for cost in estimate(settings).measures if cost.name == "data.client_test_fraction")
    rows = scores_of(run(settings)).to_pandas()
    passes = rows["samples"].sum() + 2 * rows["samples"][rows["participant"]].sum()
    of_one = build_problem(settings, load_federation(settings)).costs.forward_flops(1)
    assert cost.flops == passes * of_one
    assert cost.table_bytes == rows.size * 8


def test_a_resumed_run_has_the_same_scores(run_folder: Path) -> None:
    settings = ("local.batchnorm=local", "runtime.checkpoint_every=1", *SKEWED)
    whole = run(inline(*settings))
    with pytest.raises(Broken):
        run(inline(*settings, f"output.directory={run_folder / 'broken'}"), [BreakAfter(1)])
    again = resume(run_folder / "broken")
    assert again.summary["model_sha256"] == whole.summary["model_sha256"]
    assert scores_of(again).equals(scores_of(whole))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        SKEWED,
        ("local.batchnorm=local", *SKEWED),
        ("data.overlap=true", "data.samples_per_client=100", "algorithm=fedmr"),
        ("schedule=full", "exchange=strided", *SKEWED),
        ("schedule=full", "algorithm=local", "model=small:TwoLayers", "participation.clients_per_round=8", *SKEWED),
    ],
    ids=["skewed", "local statistics", "a pool, shared rows", "own layers", "each client alone"],
)
def test_same_scores_on_several_actors(overrides: tuple[str, ...], warm_pools: WarmPools) -> None:
    sampled = ("data.clients=8", "participation.clients_per_round=5", *overrides)
    expected = run(inline(*sampled))
    result = warm_pools.run(config(HELD_OUT, *SAMPLED, *sampled, "runtime.actors=3", "runtime.cpus_per_client=0.1"))
    assert result.summary["model_sha256"] == expected.summary["model_sha256"]
    assert scores_of(result).equals(scores_of(expected))
    for name in CLIENT_FIGURES:
        assert result.history.column(name).equals(expected.history.column(name)), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: config("evaluation.client_every=2"),
            r"client_every=2: has no effect without data\.client_test_fraction",
        ),
        (lambda: run(asynchronous(HELD_OUT)), r"data\.client_test_fraction=0\.25 with algorithm\.name=ormo"),
        (
            lambda: run(inline("runtime.slots=2", "participation.round_deadline=60")),
            r"runtime\.slots=2 with participation\.round_deadline and data\.client_test_fraction",
        ),
    ],
    ids=["without rows", "asynchronous", "slots with a deadline"],
)
def test_options_without_effect_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_figure_has_a_name_for_studies_suites_and_the_summary() -> None:
    result = run(inline())
    last = result.history.to_pylist()[-1]
    for name in CLIENT_FIGURES:
        assert name in OBJECTIVES
        assert name in QUANTITIES
        assert result.summary[name] == last[name]
    assert measure(result.summary, result.history, None)["client_accuracy_worst_decile"] is not None
    reading = read(Measure(value="client_accuracy_worst_decile"), result.history, None)
    assert reading.value == 100 * last["client_accuracy_worst_decile"]


def error_by_hand(model: object, inputs: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        outputs = model.module.eval()(torch.from_numpy(inputs))
    return float((outputs - torch.from_numpy(labels)).abs().mean())


def test_clients_of_a_regression_are_scored_by_their_absolute_error() -> None:
    """Against a few lines of PyTorch, with the models that the executor has before and after a round."""
    settings = small_tasks.config("regression", HELD_OUT, "participation.clients_per_round=2")
    with prepared(settings) as (problem, executor):
        network = Plain(problem)._model
        start = executor.model()[0].copy()
        training = executor.train(executor.plan(0))
        executor.finish()
        end, after_round = executor.model()[0], executor.score_clients().scores
        split = problem.federation.data.train
        for client, rows in enumerate(problem.federation.test_rows):
            network.vector.copy_(torch.from_numpy(end))
            expected = error_by_hand(network, split.inputs[rows], split.labels[rows])
            assert after_round[client].score == pytest.approx(expected, rel=1e-5)
            assert after_round[client].samples == len(rows)
        for report in training.reports:
            rows = problem.federation.test_rows[report.client]
            network.vector.copy_(torch.from_numpy(start))
            expected = error_by_hand(network, split.inputs[rows], split.labels[rows])
            assert report.held_out.before.score == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression", "next_token", "segmentation"])
def test_the_worst_clients_are_those_by_the_metric_of_the_task(task: TaskName) -> None:
    headline = TASKS[task].headline
    result = run(small_tasks.config(task, HELD_OUT, "participation.clients_per_round=2"))
    rows = scores_of(result).to_pandas()
    last = rows[rows["round"] == 2]
    scores, record = last["global_score"].sort_values().to_numpy(), result.history.to_pylist()[-1]
    assert len(scores) == 4
    assert record["client_score_worst"] == scores[0 if headline.higher_is_better else -1]
    assert record["client_score_mean"] == pytest.approx(scores.mean())
    assert record["client_score_after_worst"] is not None
    took_part = last["global_score"][last["participant"]].mean()
    assert record["client_score_participants"] == pytest.approx(took_part)
    for figure in SPREAD:
        assert result.summary[f"client_{headline.name}_{figure}"] == record[f"client_score_{figure}"]
    assert (record["client_accuracy_mean"] is None) == (not TASKS[task].counts_hits)
    assert read_run(result.directory).rounds.equals(result.history)


def test_clients_of_a_classification_are_scored_by_accuracy_alone() -> None:
    result = run(small_tasks.config("classification", HELD_OUT))
    assert not any(scores_of(result)[name].drop_null().to_pylist() for name in SCORE_COLUMNS)
    assert all(result.history[name].null_count == 3 for name in SCORE_FIGURES)
    assert not [name for name in result.summary if "client" in name and "accuracy" not in name and "score" in name]
    assert result.summary["client_accuracy_mean"] is not None


@pytest.mark.parametrize("task", ["classification", "regression", "next_token"])
def test_participants_are_scored_on_their_training_rows_by_the_metric_of_the_task(task: TaskName) -> None:
    """With one client, all training rows are its own, and the test split may be the same rows."""
    result = run(
        small_tasks.config(task, "data.clients=1", "evaluation.per_client=true", "data.dataset.test_is_train=1")
    )
    rows, name = tables(result.directory)["clients.parquet"], TASKS[task].headline.name
    column = "local_accuracy" if task == "classification" else "local_score"
    assert [row[column] for row in rows] == pytest.approx(result.history[f"test_{name}"].to_pylist(), rel=1e-6)
    assert all((row["local_accuracy"] is None) == (not TASKS[task].counts_hits) for row in rows)
    assert all((row["local_score"] is None) == (task == "classification") for row in rows)
