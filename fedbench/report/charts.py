"""Which charts a comparison has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedbench.report.curves import Axis, course
from fedbench.report.measures import BYTES, FLOPS, SECONDS, fitting
from fedbench.report.methods import Method
from fedbench.report.svg_chart import Chart, Line

MOST_LINES = 14
"""In one chart; more could not be told apart."""


@dataclass(frozen=True)
class _Against:
    axis: Axis
    title: str
    x_label: str
    scales: tuple[tuple[str, float], ...]


KINDS = (
    _Against("round", "Accuracy by round", "rounds", ()),
    _Against("traffic", "Accuracy by bytes sent", "sent up and down, all clients", BYTES),
    _Against("compute", "Accuracy by client work", "work of all clients", FLOPS),
    _Against("virtual", "Accuracy by virtual time", "time on the run's clock", SECONDS),
    _Against("wall", "Accuracy by wall time", "wall time of the rounds", SECONDS),
)


def charts(methods: Sequence[Method], target: float | None) -> list[Chart]:
    """Accuracy against rounds, bytes, FLOPs and time; those against virtual time for the methods that have it.

    Args:
        methods: of which the first `MOST_LINES` are drawn.
        target: an accuracy (0..1) to mark.
    """
    drawn = [_chart(kind, methods[:MOST_LINES], target) for kind in KINDS]
    return [chart for chart in drawn if chart is not None]


def _chart(kind: _Against, methods: Sequence[Method], target: float | None) -> Chart | None:
    found = [(style, method, course(method.runs, kind.axis)) for style, method in enumerate(methods)]
    ends = [float(one.x[-1]) for _, _, one in found if one is not None]
    if not ends:
        return None
    number = fitting(kind.scales, ends) if kind.scales else None
    factor, unit = (number.scale, number.unit) if number else (1.0, "rounds")
    lines = tuple(
        Line(method.letter, method.label, style, replace(one, x=one.x * factor))
        for style, method, one in found
        if one is not None
    )
    label = f"{kind.x_label} ({unit})" if number else kind.x_label
    return Chart(f"by-{kind.axis}", kind.title, label, unit, lines, target, whole=kind.axis == "round")
