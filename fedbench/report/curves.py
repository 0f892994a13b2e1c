"""The metric of a task as a function of what was spent, over seeds: curves with bands.

Seeds differ in where they stand after a round (bytes, FLOPs, seconds), so each is taken as a step function, which keeps
its last score until the next one, and all are looked up on the union of their points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.records.headline import score_column
from fedbench.records.recorded_run import RecordedRun, Values

MOST_POINTS = 400
"""A curve with more points is thinned out evenly to this many."""


@dataclass(frozen=True)
class ScoreCurve:
    """What runs were judged by on the test split, over several seeds, against what was spent.

    Attributes:
        x: what was spent, ascending.
        mean, low, high: the metric, in its recorded unit, at each x: mean, least and largest over the seeds.
        is_stepped: the seeds have points of their own, so the curve is a staircase; else it joins common points.
    """

    x: Values
    mean: Values
    low: Values
    high: Values
    is_stepped: bool


def score_curve(runs: Sequence[RecordedRun], spent: str) -> ScoreCurve | None:
    """What these runs are judged by against what was spent; None where one of them has no such metric or no scores.

    It begins where every seed has been scored once. A seed that ended earlier than others keeps its last score.

    Args:
        runs: of one method, one a seed; of one task.
        spent: name of a metric that grows, in `METRICS`.
    """
    points = [_scored_points(run, spent) for run in runs]
    if not points or any(not len(x) for x, _ in points):
        return None
    grids = [x for x, _ in points]
    common = all(len(x) == len(grids[0]) and np.array_equal(x, grids[0]) for x in grids)
    union = np.unique(np.concatenate(grids))
    union = union[union >= max(x[0] for x in grids)]
    scores = np.stack([y[np.searchsorted(x, union, side="right") - 1] for x, y in points])
    kept = _thinned(len(union))
    return ScoreCurve(
        union[kept], scores.mean(axis=0)[kept], scores.min(axis=0)[kept], scores.max(axis=0)[kept], not common
    )


def _scored_points(run: RecordedRun, spent: str) -> tuple[Values, Values]:
    """What had been spent when the run was scored, and its scores."""
    x, scores = run.course(spent), run.column(score_column(run.headline))
    scored = np.isfinite(scores) & np.isfinite(x)
    return x[scored], scores[scored]


def _thinned(count: int) -> Values | slice:
    """Indices of at most `MOST_POINTS` of `count` points, evenly spaced, the ends among them."""
    if count <= MOST_POINTS:
        return slice(None)
    return np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(int))
