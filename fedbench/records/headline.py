"""The metric by which a run's task is judged: how records name it, which round it makes the best, how it is shown.

The task stands in `description.json` and `summary.json` and in the metadata of `rounds.parquet`; where it does not, it
is classification, so that the records of classification are those of earlier versions. Whoever has a table of rounds
asks `headline_of` for the metric, and never compares values without it: of some tasks the smallest value is the best.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import pyarrow as pa

from fedbench.errors import DataError
from fedbench.tasks.kinds import TASKS, Headline, TaskName

Split = Literal["test", "validation"]

DEFAULT_TASK: TaskName = "classification"
"""The task of records that name none."""

ACCURACY = TASKS[DEFAULT_TASK].headline

TASK = b"fedbench.task"
"""The key in the metadata of a table of rounds behind which its task stands."""


def task_named(name: object) -> TaskName:
    """The task of this name.

    Raises:
        DataError: there is none; a later version may know more of them.
    """
    for task in TASKS:
        if task == name:
            return task
    raise DataError(f"task={name}: is not known; one of {', '.join(TASKS)} is needed")


def task_of(rounds: pa.Table) -> TaskName:
    """The task of the run that a table of rounds is of.

    Args:
        rounds: with `ROUND_SCHEMA`.

    Raises:
        DataError: the table names a task that is not known.
    """
    return task_named((rounds.schema.metadata or {}).get(TASK, DEFAULT_TASK.encode()).decode(errors="replace"))


def with_task(rounds: pa.Table, task: TaskName) -> pa.Table:
    """The same rounds as those of a run with this task.

    Example:
        >>> task_of(with_task(pa.table({"round": [0]}), "regression"))
        'regression'
    """
    return rounds.replace_schema_metadata(None if task == DEFAULT_TASK else {TASK: task.encode()})


def task_of_summary(summary: Mapping[str, Any]) -> TaskName:
    """The task of the run that a summary is of.

    Args:
        summary: as in `summary.json`.

    Raises:
        DataError: it names a task that is not known.
    """
    return task_named(summary.get("task", DEFAULT_TASK))


def headline_of(rounds: pa.Table) -> Headline:
    """The metric by which the run is judged that a table of rounds is of.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    return TASKS[task_of(rounds)].headline


def headline_of_summary(summary: Mapping[str, Any]) -> Headline:
    """The metric by which the run is judged that a summary is of.

    Its values in the summary are `best_NAME`, `final_NAME`, `best_validation_NAME` and `final_validation_NAME`.

    Args:
        summary: as in `summary.json`.
    """
    return TASKS[task_of_summary(summary)].headline


def score_column(headline: Headline, split: Split = "test") -> str:
    """The column of `rounds.parquet` with the metric on a split.

    >>> score_column(TASKS["next_token"].headline)
    'test_perplexity'
    """
    return f"{split}_{headline.name}"


def shown(value: float | None, headline: Headline) -> str:
    """A value of the metric for readers: in percent, or with four digits; "-" where it is not known.

    >>> shown(0.91234, TASKS["classification"].headline), shown(12.3456, TASKS["next_token"].headline)
    ('91.23%', '12.35')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2%}" if headline.percent else f"{value:.4g}"


def as_recorded(value: float, headline: Headline) -> str:
    """A value of the metric in the unit of the records, for lines that come often: 0..1 with four places.

    >>> as_recorded(0.5, TASKS["classification"].headline), as_recorded(12.3456, TASKS["next_token"].headline)
    ('0.5000', '12.35')
    """
    return f"{value:.4f}" if headline.percent else f"{value:.4g}"


def choosing_column(rounds: pa.Table) -> str:
    """The column by which rounds and runs are chosen: the headline on validation, or on test without such a split.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    headline = headline_of(rounds)
    column = score_column(headline, "validation")
    return column if rounds.column(column).null_count < rounds.num_rows else score_column(headline)


def chosen_on(rounds: pa.Table) -> str:
    """The split on which the best round is chosen: "validation" or "test".

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    return choosing_column(rounds).partition("_")[0]


def how_chosen(splits: Collection[str], headline: Headline = ACCURACY) -> str:
    """A sentence for readers on what the best accuracy of some runs is; "" for no runs.

    Args:
        splits: what `chosen_on` gives for each of the runs.
        headline: the metric by which all of them are judged.
    """
    extreme, bias = ("largest", "high") if headline.higher_is_better else ("smallest", "low")
    on_validation = f"the test {headline.words} of the round that is best on the validation split"
    on_test = f"the {extreme} of all rounds on the test split itself, and by that somewhat too {bias}"
    words = {"validation": on_validation, "test": on_test}
    kinds = [words[split] for split in words if split in splits]
    return f"Best {headline.words}: {'; without a validation split '.join(kinds)}." if kinds else ""


def best_rounds(rounds: pa.Table) -> list[int | None]:
    """For each round the index of the best one so far, by the choosing column; None before the first that was scored.

    The direction is that of the task's headline; of equal rounds the first is the best, and NaN never is.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    scores, headline = rounds.column(choosing_column(rounds)).to_pylist(), headline_of(rounds)
    best: int | None = None
    course: list[int | None] = []
    for index, score in enumerate(scores):
        is_known = score is not None and not math.isnan(score)
        if is_known and (best is None or headline.better(score, scores[best])):
            best = index
        course.append(best)
    return course


def first_round_reaching(rounds: pa.Table, target: float, column: str | None = None) -> int | None:
    """The index of the first round that was scored at `target` or better; None if none was.

    Args:
        rounds: with `ROUND_SCHEMA`.
        target: a value of the headline, in its own unit: an accuracy is a fraction.
        column: the headline on the split that has to reach it; None: on test.
    """
    headline = headline_of(rounds)
    scores = rounds.column(column or score_column(headline)).to_pylist()
    return next((i for i, score in enumerate(scores) if score is not None and headline.reached(score, target)), None)
