"""Courses of figures: their values at the end of each round, read from a table of rounds."""

import math
from collections.abc import Callable
from itertools import accumulate

import pyarrow as pa

from fedbench.accounting.totals import added
from fedbench.records.headline import best_rounds
from fedbench.records.step_jumps import jumps

Course = list[float | None]
"""A figure at the end of each round; None where it is not known."""


def running_total(*columns: str) -> Callable[[pa.Table], Course]:
    """Sums over all rounds so far of columns that are recorded for each round."""

    def read(rounds: pa.Table) -> Course:
        by_round = zip(*(rounds.column(name).to_pylist() for name in columns), strict=True)
        return list(accumulate(sum(values) for values in by_round))

    return read


def running_total_where_known(column: str) -> Callable[[pa.Table], Course]:
    """The sum over all rounds so far of a column; None from the first round on that lacks it."""

    def read(rounds: pa.Table) -> Course:
        return list(accumulate(rounds.column(column).to_pylist(), added))

    return read


def as_recorded(column: str) -> Callable[[pa.Table], Course]:
    """A column that is recorded as it stood at the end of each round."""

    def read(rounds: pa.Table) -> Course:
        return list(rounds.column(column).to_pylist())

    return read


def latest(column: str) -> Callable[[pa.Table], Course]:
    """A column that some rounds lack: each of those keeps the value of the last round that has one."""

    def read(rounds: pa.Table) -> Course:
        course: Course = []
        for value in rounds.column(column).to_pylist():
            course.append(value if value is not None or not course else course[-1])
        return course

    return read


def mean_jump(norm: str, phase: str) -> Callable[[pa.Table], Course]:
    """The geometric mean of `jumps` over the rounds so far."""

    def read(rounds: pa.Table) -> Course:
        course: Course = []
        logarithms, count = 0.0, 0
        for jump in jumps(rounds, norm, phase):
            if jump is not None:
                logarithms, count = logarithms + math.log(jump), count + 1
            course.append(math.exp(logarithms / count) if count else None)
        return course

    return read


def mean_so_far(column: str) -> Callable[[pa.Table], Course]:
    """The mean of a column over all rounds so far that have it."""

    def read(rounds: pa.Table) -> Course:
        values: list[float] = []
        course: Course = []
        for value in rounds.column(column).to_pylist():
            values += [] if value is None else [value]
            course.append(sum(values) / len(values) if values else None)
        return course

    return read


def rounds_done(rounds: pa.Table) -> Course:
    return [index + 1 for index in rounds.column("round").to_pylist()]


def at_the_best_round(column: str) -> Callable[[pa.Table], Course]:
    """A column's value in the best round so far."""

    def read(rounds: pa.Table) -> Course:
        values = rounds.column(column).to_pylist()
        return [None if best is None else values[best] for best in best_rounds(rounds)]

    return read


def best_round(rounds: pa.Table) -> Course:
    return [None if best is None else best + 1 for best in best_rounds(rounds)]
