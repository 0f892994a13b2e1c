"""What runs of each task leave and show, end to end, on data drawn for the test."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from small_tasks import config

from fedbench.cli.terminal import Progress
from fedbench.errors import ConfigError
from fedbench.experiment.result import Result
from fedbench.experiment.run import resume, run
from fedbench.records.headline import task_of
from fedbench.records.measured import BARRIER
from fedbench.records.reader import load_measured
from fedbench.records.recorded_run import read_run
from fedbench.tasks.kinds import TASKS, TaskName

pytestmark = pytest.mark.usefixtures("run_folder", "no_figures")

OTHERS: tuple[TaskName, ...] = ("multilabel", "regression", "next_token", "segmentation")

NAMES = ("best_{}", "final_{}", "best_validation_{}", "final_validation_{}")


def without_time(rounds: pa.Table) -> list[dict[str, object]]:
    return rounds.select([name for name in rounds.column_names if not name.endswith("_seconds")]).to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHERS)
def test_a_run_leaves_the_figures_of_its_task_and_no_other_ones(task: TaskName) -> None:
    kind, headline = TASKS[task], TASKS[task].headline
    result = run(config(task, "data.validation_fraction=0.25"))
    summary, rounds = result.summary, result.history
    on_validation = np.asarray(rounds[f"validation_{headline.name}"].to_pylist(), float)
    best = int(on_validation.argmax() if headline.higher_is_better else on_validation.argmin())
    assert (summary["task"], summary["best_round"], summary["chosen_on"]) == (task, best + 1, "validation")
    for name in kind.metrics:
        on_test, validated = rounds[f"test_{name}"].to_pylist(), rounds[f"validation_{name}"].to_pylist()
        expected = (on_test[best], on_test[-1], validated[best], validated[-1])
        assert tuple(summary[key.format(name)] for key in NAMES) == expected
        assert all(value is not None for value in expected)
    others = {name for kind in TASKS.values() for name in kind.metrics} - set(kind.metrics)
    assert not [name for name in others for key in NAMES if key.format(name) in summary]
    assert not [
        name for name in others for split in ("test", "validation") if any(rounds[f"{split}_{name}"].to_pylist())
    ]
    recorded = read_run(result.directory)
    assert (recorded.task, task_of(recorded.rounds)) == (task, task)
    assert recorded.rounds.equals(rounds)


def test_a_barrier_over_rows_of_which_no_token_counts_is_unknown() -> None:
    result = run(config("next_token", "data.dataset.unscored=31", "analysis.barrier=[1]", "analysis.samples=4"))
    rows = load_measured(result.directory, BARRIER).to_pylist()
    assert rows
    assert all(row["barrier"] is None and set(row["losses"]) == {None} for row in rows)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_an_accuracy_is_refused_where_the_task_has_none(task: TaskName) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.metrics: accuracy: says nothing of task={task}"):
        run(config(task, "evaluation.metrics=[accuracy]"))


def test_a_run_of_classification_leaves_no_word_of_tasks() -> None:
    result = run(config("classification"))
    assert not {name for name in result.summary if "task" in name or "mae" in name or "perplexity" in name}
    assert result.history.schema.metadata is None
    assert "task" not in json.loads((result.directory / "description.json").read_text())
    assert result.summary["best_accuracy"] is not None


@pytest.mark.parametrize("task", ["regression", "next_token"])
def test_a_resumed_run_is_the_unbroken_one_with_its_task(task: TaskName, run_folder: Path) -> None:
    settings = config(task, "runtime.checkpoint_every=1", "output.directory=broken")
    asked: list[None] = []

    def after_two_rounds() -> bool:
        asked.append(None)
        return len(asked) == 3

    broken = run(settings, should_stop=after_two_rounds)
    assert (broken.summary["status"], broken.summary["task"], broken.summary["rounds"]) == ("interrupted", task, 2)
    resumed, whole = resume(broken.directory), run(config(task))
    assert without_time(resumed.history) == without_time(whole.history)
    assert resumed.history.schema.metadata == whole.history.schema.metadata
    name = f"best_{TASKS[task].headline.name}"
    assert [resumed.summary[key] for key in (name, "best_round", "task")] == [
        whole.summary[key] for key in (name, "best_round", "task")
    ]


def test_an_asynchronous_run_is_judged_by_the_metric_of_its_task() -> None:
    result = run(config("regression", "algorithm=fedasync", "delays.concurrency=2", "delays.arrivals_per_round=4"))
    errors = result.history["test_mae"].to_pylist()
    assert (result.summary["best_mae"], result.summary["final_mae"]) == (min(errors), errors[-1])


def test_a_round_that_is_not_evaluated_shows_and_keeps_the_last_score() -> None:
    result = run(config("regression", "evaluation.every=2"))
    errors = result.history["test_mae"].to_pylist()
    assert errors[0] is None
    assert result.summary["final_mae"] == [error for error in errors if error is not None][-1]


def shown(task: TaskName) -> tuple[str, Result]:
    out = io.StringIO()
    with Progress(Console(file=out, width=40)) as progress:
        result = run(config(task, "rounds=2"), [progress])
    return out.getvalue(), result


def test_the_lines_of_a_run_show_what_it_is_judged_by() -> None:
    lines, result = shown("next_token")
    assert f"  perplexity {result.history['test_perplexity'].to_pylist()[0]:.4g}  loss" in lines
    assert "accuracy" not in lines
    assert f"best perplexity {result.summary['best_perplexity']:.4g}" in repr(result)


def test_the_training_loss_is_the_mean_over_the_tokens_that_count(run_folder: Path) -> None:
    """At a learning rate that moves nothing it is that of an evaluation on the same rows, a third of which is empty."""
    still = ("rounds=1", "local.epochs=1", "local.optimizer=sgd", "local.optimizer.lr=1e-12")
    result = run(config("next_token", "data.dataset.unscored=31", "data.dataset.test_is_train=true", *still))
    assert result.history["train_loss"][0].as_py() == pytest.approx(result.history["test_loss"][0].as_py(), rel=1e-5)
