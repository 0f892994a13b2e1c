"""Finds the cells of a suite that are methods run on tasks.

Rows and columns are groups within groups; each depth of the rows, and of the columns, is a level. Where two cells
differ at one level only, what their configurations differ in says what this level stands for: data, model or the
clients' circumstances make tasks, anything else makes methods. Where a level only says at which round a run is read,
the last of these counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from fedbench.config.identity import what_matters
from fedbench.suites.cell_values import Measure
from fedbench.suites.equal_spending import Spending
from fedbench.suites.file import leaves, path_name
from fedbench.suites.plan import Plan, SuiteCell

Level = tuple[Literal["row", "column"], int]
"""Rows or columns, and the depth from the outermost group, from 0."""

Names = Mapping[Level, str]
"""The place of a cell: {level: name of the row, column or group}."""

DATA_AND_MODEL = frozenset({"data", "model", "task"})

CIRCUMSTANCES = DATA_AND_MODEL | {"participation", "delays"}
"""Sections of a configuration on what is learnt, by whom and how fast, not on how."""

REFERENCES = frozenset({"centralised", "local"})
"""Algorithms that are no rivals of others, but say what could be reached at best and at least."""


@dataclass(frozen=True)
class Grid:
    """Cells with one measure, as methods on tasks.

    Attributes:
        measure: what they show.
        cells: {task: {method: cell}}, at least two of each.
        equal: what has been spent equally at the round that is read; None: that does not decide on it.
    """

    measure: Measure
    cells: Mapping[str, Mapping[str, SuiteCell]]
    equal: Spending | None = None

    @property
    def quantity(self) -> str:
        """What the cells show, for readers: "best accuracy at equal bytes"."""
        at_equal = f" at equal {self.equal}" if self.equal else ""
        return f"{self.measure.words}{at_equal}"

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods, in the order of the table."""
        return tuple(dict.fromkeys(method for of_task in self.cells.values() for method in of_task))


@dataclass(frozen=True)
class _Located:
    """A cell, where it stands, and the settings of its run that can change a result."""

    cell: SuiteCell
    names: Names
    settings: Mapping[str, Any]

    def name(self, levels: Iterable[Level]) -> str:
        """Its names at some levels: "cifar10 C=1"."""
        return " ".join(self.names[level] for level in levels if level in self.names)

    def differing(self, other: "_Located") -> frozenset[str]:
        """The sections of the configuration in which two cells differ."""
        keys = self.settings.keys() | other.settings.keys()
        return frozenset(key for key in keys if self.settings.get(key) != other.settings.get(key))


def grids(plan: Plan) -> list[Grid]:
    """The measures of a suite by which methods can be ranked, each with its methods and tasks.

    A measure is one of which more, or less, is better. Where tasks and methods cannot be told from each other there is
    no grid.
    """
    located = _located(plan)
    readings: dict[tuple[Measure, Spending | None], list[_Located]] = defaultdict(list)
    for place in located:
        readings[place.cell.measure, place.cell.equal].append(place)
    found = (_grid(measure, equal, places) for (measure, equal), places in readings.items())
    return [grid for grid in found if grid is not None]


def _located(plan: Plan) -> list[_Located]:
    rows = {path_name(path): [part.name for part in path] for path in leaves(plan.file.rows)}
    columns = {path_name(path): [part.name for part in path] for path in leaves(plan.file.columns)}
    located = []
    for cell in plan.cells.values():
        if not cell.runs or not cell.measure.quantity.metric.is_score or cell.measure.target is not None:
            continue
        config = plan.runs[next(iter(cell.runs.values()))].config
        if config.algorithm.name in REFERENCES or cell.through == 0:
            continue
        names: dict[Level, str] = {("row", depth): name for depth, name in enumerate(rows[cell.row])}
        names |= {("column", depth): name for depth, name in enumerate(columns[cell.column])}
        settings = what_matters(config.model_dump(mode="json"))
        located.append(_Located(cell, names, {key: value for key, value in settings.items() if key != "seed"}))
    return located


def _grid(measure: Measure, equal: Spending | None, located: list[_Located]) -> Grid | None:
    task_levels, method_levels = _levels(located)
    cells: dict[str, dict[str, _Located]] = defaultdict(dict)
    for place in located:
        of_task, method = cells[place.name(task_levels)], place.name(method_levels)
        other = of_task.get(method)
        if other is not None and other.settings != place.settings:
            return None
        if other is None or _read_later(place.cell, other.cell):
            of_task[method] = place
    methods = {method for of_task in cells.values() for method in of_task}
    if len(cells) < 2 or len(methods) < 2 or not _are_tasks(cells):
        return None
    plain = {task: {method: place.cell for method, place in of_task.items()} for task, of_task in cells.items()}
    return Grid(measure, plain, equal)


def _levels(located: list[_Located]) -> tuple[list[Level], list[Level]]:
    """The levels that make tasks, and those that make methods, rows before columns."""
    tasks, methods = [], []
    levels = sorted(
        {level for place in located for level in place.names}, key=lambda level: (level[0] != "row", level[1])
    )
    for level in levels:
        groups: dict[tuple[tuple[Level, str], ...], list[_Located]] = defaultdict(list)
        for place in located:
            if level in place.names:
                groups[tuple(item for item in place.names.items() if item[0] != level)].append(place)
        pairs = (pair for group in groups.values() for pair in combinations(group, 2))
        differing = [sections for first, second in pairs if (sections := first.differing(second))]
        if any(sections & DATA_AND_MODEL or sections <= CIRCUMSTANCES for sections in differing):
            tasks.append(level)
        elif differing:
            methods.append(level)
    return tasks, methods


def _read_later(cell: SuiteCell, other: SuiteCell) -> bool:
    return other.through is not None and (cell.through is None or cell.through > other.through)


def _are_tasks(cells: Mapping[str, Mapping[str, _Located]]) -> bool:
    """Whether all methods of a task have its data and model, and no two tasks are the same."""
    for of_task in cells.values():
        first, *others = of_task.values()
        if any(first.differing(other) & DATA_AND_MODEL for other in others):
            return False
    for one, another in combinations(cells.values(), 2):
        common = one.keys() & another.keys()
        if any(not one[method].differing(another[method]) & CIRCUMSTANCES for method in common):
            return False
    return True
