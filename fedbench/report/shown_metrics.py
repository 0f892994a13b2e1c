"""Headings and units, fitting their size, of the figures by which a report compares runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.components.suggestions import did_you_mean
from fedbench.errors import ConfigError
from fedbench.records.metrics import METRICS, Metric
from fedbench.records.own_metrics import OWN, Direction, figure, own_names
from fedbench.report.methods import Method
from fedbench.report.shown_headline import ShownHeadline, tenth_worse
from fedbench.tables.numbers import PERCENT, Number
from fedbench.tasks.kinds import TASKS, WORDS, TaskName

Scales = tuple[tuple[str, float], ...]
"""(unit, factor from the recorded unit) from small to large."""

BYTES: Scales = (("kB", 1e-3), ("MB", 1e-6), ("GB", 1e-9), ("TB", 1e-12))
FLOPS: Scales = (("MFLOP", 1e-6), ("GFLOP", 1e-9), ("TFLOP", 1e-12), ("PFLOP", 1e-15))
SECONDS: Scales = (("s", 1.0),)
JOULES: Scales = (("mJ", 1e3), ("J", 1.0), ("kJ", 1e-3), ("MJ", 1e-6))

SCALES: dict[str, Scales] = {"B": BYTES, "FLOP": FLOPS, "s": SECONDS, "J": JOULES}
"""The units that a report chooses from, by the recorded unit; another one is shown as it is."""


@dataclass(frozen=True)
class ShownMetric:
    """A metric as a column of a report.

    Attributes:
        name: of the metric, a key of `METRICS`, or own:NAME for one of the user's own.
        heading: of the column, without the unit.
        shown_in: "%" for a metric that is shown in percent though its recorded unit does not say so; "": by that unit.
    """

    name: str
    heading: str
    shown_in: str = ""

    @property
    def metric(self) -> Metric:
        """The metric that is shown."""
        return figure(self.name)

    def number(self, values: Sequence[float]) -> Number:
        """The unit and decimals with which one column shows these values, given in the recorded unit."""
        unit = self.metric.unit
        if unit == "fraction" or self.shown_in == PERCENT.unit:
            return PERCENT
        if not unit:
            return Number(1) if self.name in ("rounds", "best_round") else Number.fitting(values)
        return fitting(SCALES.get(unit, ((unit, 1.0),)), values)


COSTS = (
    ShownMetric("uplink_bytes", "uplink"),
    ShownMetric("downlink_bytes", "downlink"),
    ShownMetric("client_flops", "client work"),
    ShownMetric("paper_comm_gb", "paper's Comm."),
    ShownMetric("paper_comp_tflop", "paper's Comp."),
    ShownMetric("wall_seconds", "wall time"),
    ShownMetric("virtual_seconds", "virtual time"),
    ShownMetric("joules", "energy"),
)
"""The costs of whole runs that the main table shows where nothing else is asked for."""


def totals(task: TaskName) -> tuple[ShownMetric, ...]:
    """The figures of whole runs that the main table of a task shows where nothing else is asked for."""
    return (*_scores(task), *COSTS)


def _scores(task: TaskName) -> tuple[ShownMetric, ...]:
    """The metric by which a task is judged, then what else every evaluation of it has, in the best round."""
    kind = TASKS[task]
    shown = ShownHeadline(kind.headline)
    further = [name for name in kind.metrics if name != kind.headline.name]
    return (
        ShownMetric(shown.best, f"best {shown.words}", shown.unit),
        ShownMetric(shown.final, f"final {shown.words}", shown.unit),
        ShownMetric(shown.best_on_validation, f"best validation {shown.words}", shown.unit),
        *(ShownMetric(f"best_{name}", f"{WORDS.get(name, name)} of the best round") for name in further),
    )


_OF_TASKS = {metric.name: metric for task in TASKS if task != "multilabel" for metric in _scores(task)[:3]}
_FIRST = {metric.name: metric for metric in totals("classification")}

COLUMNS: dict[str, ShownMetric] = _FIRST | {
    name: _OF_TASKS.get(name) or ShownMetric(name, metric.meaning)
    for name, metric in METRICS.items()
    if metric.is_summarised and name not in _FIRST
}
"""Every figure of a whole run, by name: what the main table can show, and what the JSON document has."""


def printed(headline: ShownHeadline) -> tuple[str, ...]:
    """What the main table shows on paper where nothing else is asked for: as much as one page's text holds."""
    return (*headline.judged, "total_bytes", "client_flops")


SPENDINGS = (
    ShownMetric("rounds", "round"),
    ShownMetric("total_bytes", "sent up and down"),
    ShownMetric("client_flops", "client work"),
    ShownMetric("wall_seconds", "wall time"),
    ShownMetric("virtual_seconds", "virtual time"),
    ShownMetric("joules", "energy"),
)
"""What reaching a target costs."""


def own_directions(methods: Sequence[Method]) -> dict[str, Direction | None]:
    """{own:NAME: which of its values are better} of the metrics of one's own that some run has.

    A direction is None where the metric does not say it, or where runs disagree since it was changed between them.
    """
    said: dict[str, set[Direction | None]] = {}
    for run in (run for method in methods for run in method.runs):
        for name, direction in own_names(run.summary).items():
            said.setdefault(name, set()).add(direction)
    return {name: next(iter(of_runs)) if len(of_runs) == 1 else None for name, of_runs in said.items()}


def own_columns(methods: Sequence[Method]) -> tuple[ShownMetric, ...]:
    """The metrics of one's own that some run has as one number, each with its direction in the heading."""
    return tuple(
        ShownMetric(name, f"final {name.removeprefix(OWN)}{f', {better} is better' if better else ''}")
        for name, better in own_directions(methods).items()
    )


def chosen_columns(
    names: Sequence[str], task: TaskName = "classification", own: Sequence[ShownMetric] = ()
) -> tuple[ShownMetric, ...]:
    """The columns of these names, in their order.

    Args:
        names: of figures of whole runs.
        task: of the runs; a metric by which it is judged is shown as such.
        own: the metrics of one's own that there are.

    Raises:
        ConfigError: a name is none of `COLUMNS` and none of `own`, or stands there twice.
    """
    known = COLUMNS | {metric.name: metric for metric in own}
    for place, name in enumerate(names):
        if name not in known:
            near = did_you_mean(name, known).partition("; allowed")[0]
            raise ConfigError(f"--columns {name}: no such figure{near}; there are: {', '.join(known)}")
        if name in names[:place]:
            raise ConfigError(f"--columns {name}: stands there twice; name each figure once")
    judged = {metric.name: metric for metric in _scores(task)[:3]}
    return tuple(judged.get(name) or known[name] for name in names)


def fitting(scales: Scales, values: Sequence[float]) -> Number:
    """The largest unit in which the largest value is at least 1, with three digits of the smallest value.

    >>> fitting(BYTES, [2.5e6, 1.2e7]).show(2.5e6)
    '2.50 MB'
    """
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    fits = [(unit, factor) for unit, factor in scales if most * factor >= 1]
    unit, factor = (fits or list(scales[:1]))[-1]
    return Number.fitting(values, factor, unit)


def default_target(methods: Sequence[Method]) -> float | None:
    """A tenth worse than the best value of the worst method (mean over its seeds); None where none is finite.

    Args:
        methods: of one task.
    """
    shown = methods[0].headline
    worst = shown.worst([method.spread(shown.best).mean for method in methods])
    return tenth_worse(shown, worst) if math.isfinite(worst) else None
