"""Methods ranked over several tasks: average ranks, Friedman's test, and Nemenyi's for each two methods.

A task is data, model and circumstances on which every method was run. The procedure is that of Demšar, "Statistical
Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006), section 3.2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedbench.tables.comparisons import SIGNIFICANCE, TOO_FEW_SEEDS, shown_p
from fedbench.tables.seed_statistics import FEWEST_SEEDS
from fedbench.tables.table import Cell, Table

FEWEST_TASKS = FEWEST_METHODS = 3
"""The fewest that are ranked: the tests can hardly tell fewer apart."""


@dataclass(frozen=True)
class Scores:
    """Scores of methods on tasks.

    Attributes:
        quantity: what the scores are: "best accuracy".
        methods: the names of the methods.
        by_task: {name of a task: one finite score a method}.
        seeds: the fewest seeds that a score is a mean over.
        left_out: what could not be ranked, one line each.
        higher_is_better: whether the largest score is the best one, and not the smallest.
    """

    quantity: str
    methods: tuple[str, ...]
    by_task: Mapping[str, tuple[float, ...]]
    seeds: int
    left_out: tuple[str, ...] = ()
    higher_is_better: bool = True

    @property
    def refusal(self) -> str:
        """Why methods are not ranked over tasks, one line; "" where they are."""
        lacking = []
        if len(self.by_task) < FEWEST_TASKS:
            lacking.append(f"{_counted(len(self.by_task), 'task')} that every method was run on")
        if len(self.methods) < FEWEST_METHODS:
            lacking.append(_counted(len(self.methods), "method"))
        if not lacking:
            return ""
        needed = f"ranks need {FEWEST_TASKS} tasks and {FEWEST_METHODS} methods at least"
        return f"Not ranked by {self.quantity} over tasks: {' and '.join(lacking)}; {needed}."


@dataclass(frozen=True)
class Ranking:
    """The ranks of methods over tasks.

    Attributes:
        scores: at least `FEWEST_TASKS` tasks and `FEWEST_METHODS` methods.
    """

    scores: Scores

    @cached_property
    def by_task(self) -> dict[str, tuple[float, ...]]:
        """{task: the rank of each method}: 1 for the best; equal scores share the mean of their ranks."""
        from scipy.stats import rankdata

        sign = -1 if self.scores.higher_is_better else 1
        return {
            task: tuple(map(float, rankdata([sign * score for score in scores])))
            for task, scores in self.scores.by_task.items()
        }

    @cached_property
    def average(self) -> dict[str, float]:
        """{method: its average rank}, the best first."""
        columns = zip(*self.by_task.values(), strict=True)
        means = {name: math.fsum(ranks) / len(ranks) for name, ranks in zip(self.scores.methods, columns, strict=True)}
        return dict(sorted(means.items(), key=lambda method: method[1]))

    @cached_property
    def friedman(self) -> tuple[float, float]:
        """Friedman's chi-squared, corrected for ties, and its p-value: whether the methods differ at all."""
        columns = list(zip(*self.by_task.values(), strict=True))
        if all(len(set(ranks)) == 1 for ranks in self.by_task.values()):
            return 0.0, 1.0  # all equal on every task, where the formula is 0 / 0
        from scipy.stats import friedmanchisquare

        statistic, p_value = friedmanchisquare(*columns)
        return float(statistic), float(p_value)

    @cached_property
    def critical_difference(self) -> float:
        """Two average ranks that differ by this or more are told apart by Nemenyi's test.

        CD = q_alpha sqrt(k (k + 1) / (6 N)) for k methods and N tasks, where q_alpha is the quantile of the studentized
        range over sqrt(2).
        """
        from scipy.stats import studentized_range

        q = float(studentized_range.isf(SIGNIFICANCE, self._k, math.inf)) / math.sqrt(2)
        return q * self._unit

    @property
    def methods_differ(self) -> bool | None:
        """Whether Friedman's test tells the methods apart; None with too few seeds."""
        return None if self.scores.seeds < FEWEST_SEEDS else self.friedman[1] <= SIGNIFICANCE

    def are_told_apart(self, first: str, second: str) -> bool | None:
        """Whether two methods are told apart: Friedman's test finds differences, and Nemenyi's this one.

        Returns:
            None with too few seeds.
        """
        if self.methods_differ is None:
            return None
        return self.methods_differ and self.nemenyi(first, second) <= SIGNIFICANCE

    def nemenyi(self, first: str, second: str) -> float:
        """The p-value of Nemenyi's test for two methods, which is corrected for all pairs."""
        from scipy.stats import studentized_range

        distance = abs(self.average[first] - self.average[second]) / self._unit
        return float(studentized_range.sf(distance * math.sqrt(2), self._k, math.inf))

    @property
    def _k(self) -> int:
        return len(self.scores.methods)

    @property
    def _unit(self) -> float:
        return math.sqrt(self._k * (self._k + 1) / (6 * len(self.by_task)))

    @property
    def title(self) -> str:
        """What the table and the diagram show."""
        return f"Ranks by {self.scores.quantity} over {len(self.by_task)} tasks"

    def table(self) -> Table:
        """Average rank, the rank on each task, and the methods that each is told apart from; the best method first."""
        places = {name: place for place, name in enumerate(self.scores.methods)}
        rows = tuple(
            (
                name,
                (
                    Cell(f"{average:.2f}"),
                    *(Cell(f"{ranks[places[name]]:g}") for ranks in self.by_task.values()),
                    Cell(self._others(name)),
                ),
            )
            for name, average in self.average.items()
        )
        columns = ("average rank", *self.by_task, "told apart from")
        name = f"ranks-{self.scores.quantity}"
        return Table(self.title, "method", columns, rows, self._notes(), label=name)

    def _others(self, name: str) -> str:
        if self.methods_differ is None:
            return TOO_FEW_SEEDS
        return ", ".join(other for other in self.average if self.are_told_apart(name, other)) or "none"

    def _notes(self) -> tuple[str, ...]:
        statistic, p_value = self.friedman
        conclusions = {
            True: "they do, more than chance alone would bring",
            False: "not told apart, since chance alone could order them so",
            None: f"{TOO_FEW_SEEDS}, from which nothing is concluded (fewer than {FEWEST_SEEDS})",
        }
        pairs = self._k * (self._k - 1) // 2
        best = "largest" if self.scores.higher_is_better else "smallest"
        return (
            f"Rank 1 is the {best} {self.scores.quantity} on a task, as mean over seeds; equal ones share the mean of "
            "their ranks.",
            f"Do the methods differ at all? Friedman's test: chi-squared {statistic:.2f}, p {shown_p(p_value)}: "
            f"{conclusions[self.methods_differ]}.",
            f"Two methods are told apart where they differ at all and their average ranks lie "
            f"{self.critical_difference:.2f} or more apart (Nemenyi's test, which allows for all {pairs} pairs; "
            f"{SIGNIFICANCE:.0%}). Not told apart does not mean equal: with few tasks only large differences "
            "show.".replace("%", " %"),
            "Tasks that share their data are not independent of each other, which makes both tests too sure.",
            *self.scores.left_out,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; what is concluded is null with too few seeds."""
        statistic, p_value = self.friedman
        return {
            "quantity": self.scores.quantity,
            "tasks": list(self.by_task),
            "average_ranks": self.average,
            "ranks": {task: dict(zip(self.scores.methods, ranks, strict=True)) for task, ranks in self.by_task.items()},
            "friedman_chi_squared": statistic,
            "friedman_p_value": p_value,
            "critical_difference": self.critical_difference,
            "methods_differ": self.methods_differ,
            "told_apart": None
            if self.methods_differ is None
            else [
                [first, second]
                for place, first in enumerate(self.average)
                for second in list(self.average)[place + 1 :]
                if self.are_told_apart(first, second)
            ],
        }


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
