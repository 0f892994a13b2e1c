"""The charts of a comparison: what methods are judged by against what was spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedbench.records.metrics import METRICS
from fedbench.report.curves import score_curve
from fedbench.report.methods import Method
from fedbench.report.shown_metrics import SCALES, fitting
from fedbench.report.svg_chart import Chart, Line

MOST_LINES = 14
"""Lines of one chart; more could not be told apart."""


@dataclass(frozen=True)
class _Axis:
    """What a score is drawn against.

    Attributes:
        key: makes the chart's name in the page.
        metric: name of a metric that grows, in `METRICS`.
        title: of the chart, behind the name of the metric.
        x_label: of the axis, without the unit.
    """

    key: str
    metric: str
    title: str
    x_label: str


AXES = (
    _Axis("round", "rounds", "by round", "rounds"),
    _Axis("traffic", "total_bytes", "by bytes sent", "sent up and down, all clients"),
    _Axis("compute", "client_flops", "by client work", "work of all clients"),
    _Axis("virtual", "virtual_seconds", "by virtual time", "time on the run's clock"),
    _Axis("energy", "joules", "by energy", "energy of all clients"),
    _Axis("wall", "wall_seconds", "by wall time", "wall time of the rounds"),
)


def charts(methods: Sequence[Method], target: float | None, part: str = "") -> list[Chart]:
    """The metric of a task against rounds, bytes, FLOPs and time; against virtual time for methods that have it.

    Args:
        methods: of one task, of which the first `MOST_LINES` are drawn.
        target: a value to mark, in the recorded unit.
        part: what tells the charts' names from those of other tasks.
    """
    drawn = [_chart(axis, methods[:MOST_LINES], target, part) for axis in AXES]
    return [chart for chart in drawn if chart is not None]


def _chart(axis: _Axis, methods: Sequence[Method], target: float | None, part: str) -> Chart | None:
    """The chart with a line for each method that has the axis; None where no method has it."""
    curves = [
        (style, method, curve)
        for style, method in enumerate(methods)
        if (curve := score_curve(method.runs, axis.metric)) is not None
    ]
    if not curves:
        return None
    scales = SCALES.get(METRICS[axis.metric].unit)
    factor, unit, label = 1.0, axis.x_label, axis.x_label
    if scales is not None:
        number = fitting(scales, [float(curve.x[-1]) for _, _, curve in curves])
        factor, unit, label = number.scale, number.unit, f"{axis.x_label} ({number.unit})"
    lines = tuple(
        Line(method.letter, method.label, style, replace(curve, x=curve.x * factor)) for style, method, curve in curves
    )
    shown = methods[0].headline
    title = f"{shown.title} {axis.title}"
    return Chart(chart_name(axis.key, part), title, label, unit, lines, target, whole_ticks=scales is None, shown=shown)


def chart_name(axis: str, part: str = "") -> str:
    """The name of a chart in the page, and of its files.

    >>> chart_name("round"), chart_name("round", "regression")
    ('by-round', 'by-round-regression')
    """
    return "-".join(filter(None, ("by", axis, part)))
