"""Runs of every task are judged by their own metric, in its own direction; on tables and directories made by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.errors import DataError
from fedbench.records.headline import (
    best_rounds,
    choosing_column,
    chosen_on,
    first_round_reaching,
    headline_of,
    how_chosen,
    shown,
    task_of,
    task_of_summary,
    with_task,
)
from fedbench.records.metrics import METRICS, headline_figures, spent_to_reach
from fedbench.records.recorded_run import read_run
from fedbench.records.run_directory import RunDirectory
from fedbench.records.schema import ROUND_SCHEMA, RoundRecord
from fedbench.tasks.kinds import TASKS, TaskName
from tests.support.samples import a_description, a_round

OTHERS: tuple[TaskName, ...] = ("multilabel", "regression", "next_token", "segmentation")


def table(task: TaskName, **columns: list[Any]) -> pa.Table:
    """Rounds of a run with this task; `uplink_bytes` is 10 in each, and what is not named is null."""
    count = len(next(iter(columns.values())))
    columns = {"round": list(range(count)), "uplink_bytes": [10] * count} | columns
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return with_task(pa.Table.from_pylist(rows, schema=ROUND_SCHEMA), task)


def course(name: str, rounds: pa.Table) -> list[float | None]:
    return METRICS[name].by_round(rounds)


@pytest.mark.parametrize("task", TASKS)
def test_a_table_keeps_its_task_when_it_is_cut_filtered_or_filled(task: TaskName) -> None:
    rounds = table(task, test_loss=[1.0, 2.0, 3.0])
    filled = rounds.set_column(5, "test_loss", pa.array([1.0, 2.0, 2.5]))
    for part in (rounds, rounds.slice(0, 2), rounds.filter(pa.array([True, False, True])), filled):
        assert task_of(part) == task
        assert headline_of(part) is TASKS[task].headline


def test_the_least_perplexity_is_the_best_and_other_figures_are_those_of_its_round() -> None:
    rounds = table("next_token", test_perplexity=[30.0, None, 9.0, 12.0], test_accuracy=[0.1, None, 0.2, 0.3])
    assert best_rounds(rounds) == [0, 0, 2, 2]
    assert course("best_perplexity", rounds) == [30.0, 30.0, 9.0, 9.0]
    assert course("final_perplexity", rounds) == [30.0, 30.0, 9.0, 12.0]
    assert course("best_accuracy", rounds) == [0.1, 0.1, 0.2, 0.2]
    assert course("best_round", rounds) == [1, 1, 3, 3]


def test_the_greatest_mean_iou_is_the_best() -> None:
    rounds = table("segmentation", test_mean_iou=[0.2, 0.6, 0.4], test_accuracy=[0.9, 0.8, 0.7])
    assert course("best_mean_iou", rounds) == [0.2, 0.6, 0.6]
    assert course("best_accuracy", rounds) == [0.9, 0.8, 0.8]


def test_the_best_round_of_several_labels_is_that_of_their_f1() -> None:
    rounds = table("multilabel", test_macro_f1=[0.2, 0.6, 0.4])
    assert course("best_macro_f1", rounds) == [0.2, 0.6, 0.6]
    assert course("best_accuracy", rounds) == [None] * 3


def test_the_same_columns_are_judged_by_accuracy_where_the_task_is_classification() -> None:
    rounds = table("classification", test_macro_f1=[0.2, 0.6, 0.4], test_accuracy=[0.9, 0.8, 0.7])
    assert course("best_macro_f1", rounds) == [0.2, 0.2, 0.2]
    assert rounds.schema.metadata is None


def test_an_error_that_is_not_a_number_is_never_the_best() -> None:
    rounds = table("regression", test_mae=[math.nan, 3.0, math.nan, 2.0])
    assert best_rounds(rounds) == [None, 1, 1, 3]
    assert first_round_reaching(rounds, 2.5) == 3


def test_the_best_round_is_chosen_on_validation_by_the_direction_of_the_task() -> None:
    rounds = table("regression", test_mae=[1.0, 2.0, 3.0], validation_mae=[5.0, 4.0, 6.0], test_r2=[0.5, 0.4, 0.3])
    assert (choosing_column(rounds), chosen_on(rounds)) == ("validation_mae", "validation")
    assert course("best_mae", rounds) == [1.0, 2.0, 2.0]
    assert course("best_validation_mae", rounds) == [5.0, 4.0, 4.0]
    assert course("best_r2", rounds) == [0.5, 0.4, 0.4]


def test_a_target_is_reached_from_above_where_less_is_better() -> None:
    rounds = table("next_token", test_perplexity=[30.0, 12.0, 9.0])
    assert [first_round_reaching(rounds, target) for target in (31.0, 12.0, 10.0, 8.0)] == [0, 1, 2, None]
    assert spent_to_reach(rounds, 12.0, ["uplink_bytes", "rounds"]) == {"uplink_bytes": 20, "rounds": 2}
    assert spent_to_reach(rounds, 1.0, ["rounds"]) is None


@pytest.mark.parametrize("task", TASKS)
def test_each_metric_of_a_task_has_its_figures_and_the_direction_of_the_headline(task: TaskName) -> None:
    kind = TASKS[task]
    for name in headline_figures(kind.headline):
        assert METRICS[name].is_score
        assert METRICS[name].bigger_is_better == kind.headline.higher_is_better
    rounds = table(task, **{f"test_{name}": [0.5] for name in kind.metrics})
    assert all(course(f"final_{name}", rounds) == [0.5] for name in kind.metrics)


def test_values_are_shown_in_percent_or_in_the_metric_s_own_unit() -> None:
    assert shown(0.5, TASKS["segmentation"].headline) == "50.00%"
    assert shown(0.5, TASKS["regression"].headline) == "0.5"
    assert shown(None, TASKS["regression"].headline) == shown(math.nan, TASKS["regression"].headline) == "-"


def test_how_the_best_round_is_chosen_is_said_of_the_metric_and_its_direction() -> None:
    said = how_chosen({"validation", "test"}, TASKS["regression"].headline)
    assert said == (
        "Best MAE: the test MAE of the round that is best on the validation split; without a validation split the "
        "smallest of all rounds on the test split itself, and by that somewhat too low."
    )


def recorded(directory: Path, task: TaskName, summary: dict[str, Any] | None = None) -> Path:
    """The directory of a run of two rounds with this task."""
    run, records = RunDirectory(directory, plots=False), [a_round(0), a_round(1)]
    scores = {f"test_{name}": 0.25 for name in TASKS[task].metrics}
    records = [replace(record, **({"test_accuracy": None} | scores)) for record in records]
    run.run_started(replace(a_description(directory), task=task))
    for record in records:
        run.round_finished(record, ())
    sums = {name: sum(getattr(record, name) for record in records) for name in BYTES}
    named = {} if task == "classification" else {"task": task}
    run.run_finished({"status": "finished", "rounds": 2, **sums, **(named if summary is None else summary)})
    return directory


BYTES = ("uplink_bytes", "downlink_bytes", "client_flops")


@pytest.mark.parametrize("task", OTHERS)
def test_a_recorded_run_names_its_task_in_its_files_and_is_read_with_it(tmp_path: Path, task: TaskName) -> None:
    run = read_run(recorded(tmp_path, task))
    assert (run.task, run.headline, task_of(run.rounds), task_of_summary(run.summary)) == (
        task, TASKS[task].headline, task, task,
    )  # fmt: skip
    assert json.loads((tmp_path / "description.json").read_text())["task"] == task
    assert list(run.course(f"final_{run.headline.name}")) == [0.25, 0.25]


def test_records_of_classification_name_no_task(tmp_path: Path) -> None:
    run = read_run(recorded(tmp_path, "classification"))
    assert (run.task, run.headline.name) == ("classification", "accuracy")
    assert "task" not in json.loads((tmp_path / "description.json").read_text())
    assert pq.read_schema(tmp_path / "rounds.parquet").metadata is None


def test_a_run_that_goes_on_keeps_its_task(tmp_path: Path) -> None:
    recorded(tmp_path, "regression")
    again = RunDirectory.reopen(tmp_path, 1, plots=False)
    again.run_started(replace(a_description(tmp_path), task="regression"))
    assert (task_of(again.history()), again.history().num_rows) == ("regression", 1)


def test_files_of_two_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"the task in summary\.json is multilabel, the one in description\.json is reg"
    ):
        read_run(recorded(tmp_path, "regression", {"task": "multilabel"}))


def test_a_task_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    rounds = table("regression", test_mae=[1.0]).replace_schema_metadata({b"fedbench.task": b"ranking"})
    with pytest.raises(DataError, match="task=ranking: is not known; one of classification, multilabel"):
        best_rounds(rounds)


def test_a_round_is_chosen_by_the_score_of_its_task() -> None:
    record: RoundRecord = replace(a_round(0), test_perplexity=9.0)
    perplexity = TASKS["next_token"].headline
    assert record.choosing_score(perplexity) == 9.0
    assert replace(record, validation_perplexity=8.0).choosing_score(perplexity) == 8.0
