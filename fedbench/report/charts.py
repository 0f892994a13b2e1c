"""The charts of a comparison: test accuracy against what was spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedbench.records.metrics import METRICS
from fedbench.report.curves import accuracy_curve
from fedbench.report.methods import Method
from fedbench.report.shown_metrics import SCALES, fitting
from fedbench.report.svg_chart import Chart, Line

MOST_LINES = 14
"""Lines of one chart; more could not be told apart."""


@dataclass(frozen=True)
class _Axis:
    """What accuracy is drawn against.

    Attributes:
        key: makes the chart's name in the page.
        metric: name of a metric that grows, in `METRICS`.
        title: of the chart.
        x_label: of the axis, without the unit.
    """

    key: str
    metric: str
    title: str
    x_label: str


AXES = (
    _Axis("round", "rounds", "Accuracy by round", "rounds"),
    _Axis("traffic", "total_bytes", "Accuracy by bytes sent", "sent up and down, all clients"),
    _Axis("compute", "client_flops", "Accuracy by client work", "work of all clients"),
    _Axis("virtual", "virtual_seconds", "Accuracy by virtual time", "time on the run's clock"),
    _Axis("energy", "joules", "Accuracy by energy", "energy of all clients"),
    _Axis("wall", "wall_seconds", "Accuracy by wall time", "wall time of the rounds"),
)


def charts(methods: Sequence[Method], target: float | None) -> list[Chart]:
    """Accuracy against rounds, bytes, FLOPs and time; those against virtual time for the methods that have it.

    Args:
        methods: of which the first `MOST_LINES` are drawn.
        target: an accuracy (0..1) to mark.
    """
    drawn = [_chart(axis, methods[:MOST_LINES], target) for axis in AXES]
    return [chart for chart in drawn if chart is not None]


def _chart(axis: _Axis, methods: Sequence[Method], target: float | None) -> Chart | None:
    """The chart with a line for each method that has the axis; None where no method has it."""
    curves = [
        (style, method, curve)
        for style, method in enumerate(methods)
        if (curve := accuracy_curve(method.runs, axis.metric)) is not None
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
    return Chart(f"by-{axis.key}", axis.title, label, unit, lines, target, whole_ticks=scales is None)
