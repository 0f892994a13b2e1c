"""The rows of a suite's table, or its columns, measured against one of them, seed by seed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedbench.suites.file import leaves, path_name
from fedbench.suites.plan import Plan, SuiteCell
from fedbench.suites.tasks import REFERENCES
from fedbench.tables.comparisons import Judgement, explained, judged_together
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import INTERVAL, Paired, paired
from fedbench.tables.table import Cell, Table

Values = Callable[[SuiteCell], Mapping[int, float]]
"""Gives the values of a cell, {seed: value in the shown unit}, for the seeds that have one."""


@dataclass(frozen=True)
class Difference:
    """A cell minus its baseline.

    Attributes:
        cell: the cell.
        baseline: the cell that it is measured against, in the same column, or in the same row.
        pairs: the differences, seed by seed, in the shown unit.
        judgement: what is concluded, corrected for all differences of the suite.
    """

    cell: SuiteCell
    baseline: SuiteCell
    pairs: Paired
    judgement: Judgement

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spread = self.pairs.difference
        return {
            "row": self.cell.row,
            "column": self.cell.column,
            "baseline": {"row": self.baseline.row, "column": self.baseline.column},
            "seeds": list(self.pairs.seeds),
            "mean": spread.mean if spread.n else None,
            "interval": list(spread.interval) if spread.interval else None,
            **self.judgement.to_mapping(),
        }


def differences(plan: Plan, values: Values) -> dict[tuple[str, str], Difference]:
    """{(row, column): difference from the baseline}, of figures of which more or less is better; {} without a baseline.

    Args:
        plan: of the suite, whose file names the baseline.
        values: reads a cell.
    """
    pairs = {
        (cell.row, cell.column): (cell, baseline, paired(values(cell), values(baseline)))
        for cell in plan.cells.values()
        if (baseline := _baseline_of(cell, plan)) is not None
    }
    judgements = judged_together({place: pair.p_value for place, (_, _, pair) in pairs.items()})
    return {place: Difference(*pair, judgements[place]) for place, pair in pairs.items()}


def differences_table(plan: Plan, values: Values) -> Table | None:
    """The differences with their intervals and verdicts; None without a baseline."""
    found = differences(plan, values)
    if not found:
        return None
    rows = [row for row in plan.rows if any(row == of for of, _ in found)]
    columns = [column for column in plan.columns if any(column == of for _, of in found)]
    headings, cells = [], []
    for column in columns:
        in_column = {row: difference for (row, of), difference in found.items() if of == column}
        measure = next(iter(in_column.values())).cell.measure
        unit = "points" if measure.quantity.unit == "%" else measure.quantity.unit
        digits = measure.number(
            [value for shown in in_column.values() for value in shown.pairs.difference.values]
        ).digits
        number = Number(digits, is_change=True)
        headings += [f"{column} ({unit})" if unit else column, f"{column}: {INTERVAL}, verdict"]
        cells.append([_cells(in_column.get(row), number) for row in rows])
    size = max(difference.judgement.family for difference in found.values())
    baseline = plan.file.baseline
    return Table(
        title=f"{plan.file.title}: differences from {baseline}",
        corner=plan.file.corner,
        columns=tuple(headings),
        rows=tuple((row, tuple(cell for column in cells for cell in column[place])) for place, row in enumerate(rows)),
        notes=(
            f"Each figure minus that of {baseline} with the same seed; the interval is Student's t interval for the "
            "mean difference.",
            *_less_is_better(found.values()),
            explained("paired t test over seeds", f"each figure with that of {baseline}", size),
        ),
        label=f"{plan.name}-differences",
    )


def _less_is_better(found: Iterable[Difference]) -> Iterator[str]:
    """A note on the figures of which less is better; none where there are none."""
    metrics = (difference.cell.measure for difference in found)
    words = dict.fromkeys(measure.words for measure in metrics if measure.quantity.metric.is_error)
    if words:
        yield f"Lower is better: {', '.join(words)}; a difference below zero is an improvement there."


def _baseline_of(cell: SuiteCell, plan: Plan) -> SuiteCell | None:
    """The cell that a cell is measured against; None where it is not measured against any.

    A baseline within a group, such as "FedAvg" within "cifar10", is that of the cells of its group.
    """
    name, file = plan.file.baseline, plan.file
    is_reference = any(plan.runs[digest].config.algorithm.name in REFERENCES for digest in cell.runs.values())
    metric = cell.measure.quantity.metric
    if not name or is_reference or not metric.is_score or cell.measure.target is not None:
        return None
    for parts, own, other in (
        (file.rows, cell.row, lambda row: (row, cell.column)),
        (file.columns, cell.column, lambda column: (cell.row, column)),
    ):
        paths = {path_name(path): path for path in leaves(parts)}
        for full, path in paths.items():
            if full == name or (path[-1].name == name and path[:-1] == paths[own][:-1]):
                baseline = plan.cells.get(other(full)) if full != own else None
                return baseline if baseline is not None and baseline.measure == cell.measure else None
    return None


def _cells(difference: Difference | None, number: Number) -> tuple[Cell, Cell]:
    """The difference, and its interval with the verdict."""
    if difference is None:
        return Cell("-"), Cell("-")
    spread = difference.pairs.difference
    if not spread.n:
        return Cell("no common seed"), Cell("-")
    words = difference.judgement.words
    if spread.interval is not None:
        words = f"{number.signed(spread.interval[0])} to {number.signed(spread.interval[1])}: {words}"
    return Cell(spread=spread, number=number), Cell(words)
