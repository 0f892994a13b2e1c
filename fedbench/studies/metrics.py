"""What a study can aim at: figures of a run's summary, and what it took to reach a target."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from fedbench.records.headline import ACCURACY, choosing_column
from fedbench.records.metrics import METRICS, headline_figures, spent_to_reach
from fedbench.tasks.kinds import TASKS, Headline

TO_TARGET = {
    "bytes_to_target": METRICS["total_bytes"],
    "flops_to_target": METRICS["client_flops"],
    "rounds_to_target": METRICS["rounds"],
    "virtual_seconds_to_target": METRICS["virtual_seconds"],
    "joules_to_target": METRICS["joules"],
}
"""Objectives that ask what had been spent when the target was first reached."""

OBJECTIVES = {name: metric for name, metric in METRICS.items() if metric.is_summarised} | TO_TARGET
"""Everything that an objective or a constraint may name, and the metric that it reads."""

CHOOSERS = {
    name: validated
    for name in OBJECTIVES
    for when in ("best_", "final_")
    if name.startswith(when) and (validated := f"{when}validation_{name.removeprefix(when)}") in OBJECTIVES
}
"""The figures of the test split, and what trials are chosen by in their place where there is a validation split."""

HEADLINES = {
    figure: headline
    for name in ("next_token", "segmentation", "regression", "classification", "multilabel")
    for headline in (TASKS[name].headline,)
    for figure in headline_figures(headline)
}
"""The objectives that are of a metric by which a task is judged, and that metric.

Every evaluation with the task has a value of it. What further metrics other tasks have, too, comes behind: the first
that a run has is the one by which it is judged.
"""

SUCCESSES = tuple(name for name, metric in OBJECTIVES.items() if metric.is_score)
"""The objectives of which a longer run tends to have a better value."""


def own_direction(name: str) -> Literal["maximize", "minimize"] | None:
    """The direction in which an objective is better; None for a mere description of a run.

    >>> own_direction("best_perplexity"), own_direction("final_accuracy"), own_direction("bytes_to_target")
    ('minimize', 'maximize', 'minimize')
    """
    metric = OBJECTIVES[name]
    if metric.bigger_is_better:
        return "maximize"
    return "minimize" if metric.is_error or metric.grows else None


def judged_by(measured: Mapping[str, float]) -> Headline:
    """The metric by which the runs are judged that have these figures; the accuracy where none was evaluated.

    Args:
        measured: {name: value} of figures.
    """
    return next((headline for figure, headline in HEADLINES.items() if figure in measured), ACCURACY)


def measure(summary: Mapping[str, Any], rounds: pa.Table, target: float | None) -> dict[str, float]:
    """The figures that a run has, by the names of `OBJECTIVES`.

    A run that was never scored at `target` or better has no *_to_target: there is no honest number for it.

    Args:
        summary: as in `summary.json`.
        rounds: as in `rounds.parquet`, with the run's task.
        target: a value of the metric by which the task is judged, of the validation split where there is one; or None.
    """
    figures = {name: metric.of_summary(summary) for name, metric in METRICS.items() if metric.is_summarised}
    measured = {name: value for name, value in figures.items() if value is not None}
    wanted = [metric.name for metric in TO_TARGET.values()]
    spent = None if target is None else spent_to_reach(rounds, target, wanted, choosing_column(rounds))
    if spent is not None:
        measured |= {name: spent[metric.name] for name, metric in TO_TARGET.items() if metric.name in spent}
    return measured


def mean(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds of each figure that all of them have.

    Args:
        seeds: {name: value} of each seed's run.
    """
    if not seeds:
        return {}
    shared = set(seeds[0]).intersection(*seeds)
    return {name: sum(figures[name] for figures in seeds) / len(seeds) for name in seeds[0] if name in shared}


def lacking(wanted: Sequence[str], measured: Mapping[str, float], target: float | None) -> str | None:
    """Why a trial has no value that may choose, in a line; None if it has all that is wanted."""
    for name in wanted:
        if name in CHOOSERS and CHOOSERS[name] in measured:
            return f"{name}: is of the test split, and the data have one for validation; choose by {CHOOSERS[name]}"
        if name in measured:
            continue
        headline = judged_by(measured)
        if name in CHOOSERS.values() and f"final_validation_{headline.name}" not in measured:
            return f"{name}: the data have no validation split; set data.validation_fraction"
        if name in TO_TARGET and target is not None:
            return f"{name}: the {headline.words} never reached target={target:g}"
        reason = OBJECTIVES[name].undefined
        return f"{name}: this run has no such figure{f' ({reason})' if reason else ''}"
    return None
