"""Accuracy as a function of what was spent, over seeds: curves with bands.

Seeds differ in where they stand after a round (bytes, FLOPs, seconds), so each is taken as a step function, which keeps
its last score until the next one, and all are looked up on the union of their points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedbench.records.recorded_run import RecordedRun, Values
from fedbench.report.measures import traffic

Axis = Literal["round", "traffic", "compute", "wall", "virtual"]

MOST_POINTS = 400
"""Of a curve; more are thinned out evenly."""


@dataclass(frozen=True)
class Course:
    """Accuracy over several seeds.

    Attributes:
        x: what was spent, ascending.
        mean, low, high: accuracy (0..1) at each x: mean, least and largest over the seeds.
        is_stepped: the seeds have points of their own, so the curve is a staircase; else it joins common points.
    """

    x: Values
    mean: Values
    low: Values
    high: Values
    is_stepped: bool


def course(runs: Sequence[RecordedRun], axis: Axis) -> Course | None:
    """The course of some runs; None where they have no such axis or no scores.

    It begins where every seed has been scored once. A seed that ended earlier than others keeps its last score.
    """
    points = [_points(run, axis) for run in runs]
    if not points or any(not len(x) for x, _ in points):
        return None
    grids = [x for x, _ in points]
    common = all(len(x) == len(grids[0]) and np.array_equal(x, grids[0]) for x in grids)
    union = np.unique(np.concatenate(grids))
    union = union[union >= max(x[0] for x in grids)]
    scores = np.stack([y[np.searchsorted(x, union, side="right") - 1] for x, y in points])
    kept = _thinned(len(union))
    return Course(
        union[kept], scores.mean(axis=0)[kept], scores.min(axis=0)[kept], scores.max(axis=0)[kept], not common
    )


def _points(run: RecordedRun, axis: Axis) -> tuple[Values, Values]:
    """Where the run was scored, and its scores."""
    x = spent(run, axis)
    accuracy = run.column("test_accuracy")
    scored = np.isfinite(accuracy) & np.isfinite(x)
    return x[scored], accuracy[scored]


def spent(run: RecordedRun, axis: Axis) -> Values:
    """By the end of each round: rounds, bytes up and down, FLOPs, wall or virtual seconds; NaN where there are none."""
    if axis == "round":
        return run.column("round") + 1
    if axis == "traffic":
        return traffic(run)
    if axis == "virtual":
        return run.column("virtual_seconds")
    total: Values = np.cumsum(run.column("client_flops" if axis == "compute" else "wall_seconds"))
    return total


def _thinned(count: int) -> Values | slice:
    if count <= MOST_POINTS:
        return slice(None)
    return np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(int))
