"""Studies of tasks that are judged by another metric than accuracy: figures by hand, and one study end to end."""

import threading
from dataclasses import replace
from pathlib import Path

import optuna
import pyarrow as pa
import pytest
from samples import a_description, a_round
from small_studies import study

from fedbench.cli.study_terminal import StudyProgress
from fedbench.records.headline import with_task
from fedbench.records.schema import ROUND_SCHEMA
from fedbench.studies.file import parse_study
from fedbench.studies.metrics import judged_by, lacking, measure
from fedbench.studies.results import METRICS, remarks_on_choice
from fedbench.studies.run import sweep
from fedbench.studies.trial_runner import SeedRun
from fedbench.tasks.kinds import TASKS, TaskName


def rounds(task: TaskName, **columns: list[float | None]) -> pa.Table:
    records = [replace(a_round(index), test_accuracy=None) for index in range(len(next(iter(columns.values()))))]
    scores = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [vars(record) | scored for record, scored in zip(records, scores, strict=True)]
    return with_task(pa.Table.from_pylist(rows, schema=ROUND_SCHEMA), task)


@pytest.mark.parametrize(("target", "expected"), [(10.0, 2.0), (9.0, 2.0), (30.0, 1.0), (8.0, None)])
def test_a_target_is_reached_by_the_direction_of_the_task(target: float, expected: float | None) -> None:
    table = rounds("next_token", test_perplexity=[30.0, 9.0, 12.0])
    assert measure({"task": "next_token"}, table, target).get("rounds_to_target") == expected


def test_what_is_lacking_is_said_of_the_metric_by_which_the_task_is_judged() -> None:
    measured = {"best_perplexity": 9.0, "final_perplexity": 9.0, "best_accuracy": 0.1, "final_accuracy": 0.1}
    assert lacking(["rounds_to_target"], measured, 8.0) == "rounds_to_target: the perplexity never reached target=8"
    assert lacking(["best_validation_perplexity"], measured, None) == (
        "best_validation_perplexity: the data have no validation split; set data.validation_fraction"
    )
    assert lacking(["best_mae"], measured, None) == (
        "best_mae: this run has no such figure (Only an evaluation with task=regression has it)"
    )
    chosen = measured | {"best_validation_perplexity": 9.0, "final_validation_perplexity": 9.0}
    assert "choose by best_validation_perplexity" in str(lacking(["best_perplexity"], chosen, None))


@pytest.mark.parametrize("task", TASKS)
def test_figures_tell_by_which_metric_their_runs_are_judged(task: TaskName) -> None:
    kind = TASKS[task]
    figures = {f"best_{name}": 0.5 for name in reversed(kind.metrics)}
    further = {"best_macro_f1": 0.5} if task == "classification" else {}
    assert judged_by(further | figures) == kind.headline


def test_a_choice_on_the_test_split_is_remarked_on_in_the_direction_of_the_task() -> None:
    made = optuna.create_study(direction="minimize")
    made.add_trial(optuna.trial.create_trial(value=9.0, user_attrs={METRICS: {"best_mae": 9.0}}))
    file = parse_study(study(objectives=[{"metric": "best_mae"}], overrides=[*study()["overrides"], "task=regression"]))
    (line,) = remarks_on_choice(made, file)
    assert line.startswith(
        "the trials were compared by their MAE on the test split, so that of the best one is too low"
    )
    assert line.endswith("choose by best_validation_mae")


def test_a_pruner_is_told_the_metric_that_is_sought_on_the_split_by_which_is_chosen() -> None:
    overrides = [*study()["overrides"], "task=next_token"]
    sought = [{"metric": "best_validation_perplexity"}]
    file = parse_study(study(overrides=overrides, objectives=sought, pruner="median"))
    pruned = optuna.create_study(direction="minimize", pruner=optuna.pruners.ThresholdPruner(lower=26.0))
    watch = SeedRun(file, 0, pruned.ask(), threading.Event())
    watch.run_started(replace(a_description(Path("run")), task="next_token"))
    scores = [(40.0, 30.0), (None, None), (20.0, 25.0)]
    for index, (test, validation) in enumerate(scores):
        assert not watch.should_stop()
        record = replace(a_round(index), test_perplexity=test, validation_perplexity=validation)
        watch.round_finished(record, ())
    assert pruned.trials[0].intermediate_values == {1: 30.0, 3: 25.0}
    assert watch.should_stop()
    assert watch.where == "round 3/10 perplexity 25"


@pytest.mark.slow
@pytest.mark.usefixtures("flops_counted_once", "no_figures")
def test_a_study_of_a_regression_finds_the_least_error(run_folder: Path) -> None:
    from rich.console import Console

    overrides = [*study()["overrides"], "task=regression", "data.validation_fraction=0.2", "tracking.enabled=false"]
    space = {"local.optimizer.lr": {"type": "categorical", "choices": [1e-9, 0.01]}}
    values = study(overrides=overrides, space=space, sampler="grid", budget={"trials": 2}, concurrency=1)
    del values["objectives"]
    result = sweep(parse_study(values), StudyProgress(Console(quiet=True)))
    errors = {trial.params["local.optimizer.lr"]: trial.values[0] for trial in result.study.get_trials()}
    (best,) = result.best
    assert best.params["local.optimizer.lr"] == 0.01
    assert errors[0.01] < errors[1e-9]
    assert f"best_validation_mae {best.values[0]:.6g}, best_mae on test" in result.best_files[0].read_text()


def test_what_a_trial_took_to_its_target_goes_by_the_task_of_its_run() -> None:
    overrides = [*study()["overrides"], "task=regression"]
    file = parse_study(study(objectives=[{"metric": "rounds_to_target"}], target=2.5, overrides=overrides))
    watch = SeedRun(file, 0, None, threading.Event())
    watch.run_started(replace(a_description(Path("run")), task="regression"))
    for index, error in enumerate((3.0, 2.0, 1.0)):
        watch.round_finished(replace(a_round(index), test_accuracy=None, test_mae=error), ())
    watch.run_finished({"status": "finished", "task": "regression"})
    assert watch.metrics["rounds_to_target"] == 2
