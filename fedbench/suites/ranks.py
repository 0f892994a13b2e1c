"""The methods of a suite ranked over its tasks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedbench.suites.plan import SuiteCell
from fedbench.suites.tasks import Grid
from fedbench.tables.ranks import Ranking, Scores
from fedbench.tables.seed_statistics import Spread


@dataclass(frozen=True)
class SuiteRanks:
    """The rankings of a suite.

    Attributes:
        rankings: one for each measure by which methods can be ranked.
        refusals: why methods are not ranked by other measures, one line each.
    """

    rankings: tuple[Ranking, ...]
    refusals: tuple[str, ...]


Values = Callable[[SuiteCell], Mapping[int, float]]
"""Gives the values of a cell, {seed: value}, for the seeds that have one."""


def ranks_of(grids: Sequence[Grid], seeds: Sequence[int], values: Values) -> SuiteRanks:
    """The rankings over those tasks on which every method has a figure for every seed.

    Args:
        grids: the methods and tasks of a suite, as `fedbench.suites.tasks.grids` gives them.
        seeds: of the suite.
        values: reads a cell.
    """
    all_scores = [_scores(grid, seeds, values) for grid in grids]
    rankings = tuple(Ranking(scores) for scores in all_scores if not scores.refusal)
    return SuiteRanks(rankings, tuple(scores.refusal for scores in all_scores if scores.refusal))


def _scores(grid: Grid, seeds: Sequence[int], values: Values) -> Scores:
    methods = grid.methods
    by_task: dict[str, tuple[float, ...]] = {}
    left_out = []
    for task, of_task in grid.cells.items():
        whole = {
            method: spread for method, cell in of_task.items() if (spread := _whole(values(cell), seeds)) is not None
        }
        if lacking := [method for method in methods if method not in whole]:
            left_out.append(f"{task} does not count: without a figure for every seed there: {', '.join(lacking)}.")
            continue
        by_task[task] = tuple(whole[method].mean for method in methods)
    higher_is_better = grid.measure.quantity.metric.bigger_is_better
    return Scores(grid.quantity, methods, by_task, len(seeds), tuple(left_out), higher_is_better)


def _whole(values: Mapping[int, float], seeds: Sequence[int]) -> Spread | None:
    """The values over all seeds; None where one is missing, or not finite."""
    is_whole = all(seed in values and math.isfinite(values[seed]) for seed in seeds)
    return Spread.of(values[seed] for seed in seeds) if is_whole else None
