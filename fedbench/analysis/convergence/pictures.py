"""Figures of a convergence study: the theorems' quantities against T in log-log, each kind in a panel of its own."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedbench.algorithms.base import Values
from fedbench.analysis.convergence.scalings import Quantity, value_of
from fedbench.analysis.convergence.series import Measurement, Series
from fedbench.analysis.convergence.theory import RATE
from fedbench.records.figure_style import GREY, finish_axes
from fedbench.report.palette import LINES
from fedbench.tables.seed_statistics import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
MARKERS = "osD^vPX"

NORM = {"whole": r"mean of $\|\nabla f(w_t)\|^2$", "masked": r"mean of $\|S_t \odot \nabla f(w_t)\|^2$"}
"""The quantities as they are written at an axis."""

MEASURED_NORM = r"running mean of $\|g_t\|^2$"
"""What recorded runs have, as it is written at an axis."""


def study_picture(measurements: Sequence[Measurement], fitted_from: int) -> bytes:
    """A PNG with up to four panels: full updates, partial updates masked and whole, asynchronous runs.

    Args:
        measurements: all of one problem.
        fitted_from: the smallest horizon over which slopes are fitted.
    """
    from matplotlib.figure import Figure

    full = [measured for measured in measurements if measured.masked is not None and measured.series.groups == 1]
    partial = [measured for measured in measurements if measured.series.groups > 1]
    arrivals = [measured for measured in measurements if measured.masked is None]
    figure = Figure(figsize=(9.6, 8.4), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(2, 2)
    _panel(panels[0, 0], full, "whole", "Full updates: what FedAvg's theorem bounds", fitted_from)
    _panel(panels[0, 1], partial, "masked", "Partial updates: what FedPart's theorem bounds", fitted_from)
    _panel(panels[1, 0], arrivals, "whole", "Arrivals: what OrMo's theorems bound", fitted_from)
    _panel(panels[1, 1], partial, "whole", "Partial updates, whole gradient: no theorem", fitted_from, is_bounded=False)
    return _png(figure)


@dataclass(frozen=True)
class RunningMean:
    """The running mean of a squared norm, as it is drawn.

    Attributes:
        label: what it is called.
        horizons: int64 [n], T.
        means: float64 [n], the mean over the first T steps.
    """

    label: str
    horizons: npt.NDArray[np.int64]
    means: Values


MEASURED_TITLES: dict[Quantity, str] = {
    "whole": "Full updates: the whole gradient",
    "masked": "Partial updates: the gradient of what trains",
}


def recorded_picture(curves: Mapping[Quantity, Sequence[RunningMean]]) -> bytes:
    """A PNG with one panel for each kind of gradient that recorded runs measured.

    Args:
        curves: {kind: its running means}.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(curves), 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (quantity, of_quantity) in zip(panels, curves.items(), strict=True):
        for number, curve in enumerate(of_quantity):
            axes.plot(curve.horizons, curve.means, color=LINES[number % len(LINES)], linewidth=1.4, label=curve.label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        longest = max(of_quantity, key=lambda curve: int(curve.horizons[-1]))
        _guide(axes, [longest.horizons[-1] / 16, longest.horizons[-1]], 0.8 * float(longest.means[-1]))
        _finish(axes, MEASURED_TITLES[quantity], "T, local steps", MEASURED_NORM)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _guide(axes: "Axes", horizons: Sequence[float], end: float) -> None:
    """Draw a line of slope -1/2 that ends at `end`."""
    values = [end * (horizon / horizons[-1]) ** RATE for horizon in horizons]
    axes.plot(horizons, values, color=GREY, linewidth=1.2, linestyle=":", label="slope -1/2")


def _finish(axes: "Axes", title: str, x: str, y: str) -> None:
    """Write what a panel shows."""
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    finish_axes(axes)
    axes.legend(fontsize=6.5, framealpha=0.85, edgecolor="none")


def _panel(
    axes: "Axes",
    measurements: Sequence[Measurement],
    quantity: Quantity,
    title: str,
    fitted_from: int,
    is_bounded: bool = True,
) -> None:
    """Draw one quantity of several series: means over seeds with their intervals, and bounds as dashes."""
    by_series: dict[Series, dict[int, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    for measurement in measurements:
        by_series[measurement.series][measurement.horizon].append(measurement)
    lowest = np.inf
    for number, (series, by_horizon) in enumerate(by_series.items()):
        colour = LINES[number % len(LINES)]
        x = sorted(by_horizon)
        spreads = [Spread.of(value_of(measured, quantity) for measured in by_horizon[horizon]) for horizon in x]
        means = np.asarray([spread.mean for spread in spreads])
        reach = [spread.interval[1] - spread.mean if spread.interval is not None else 0.0 for spread in spreads]
        axes.errorbar(
            x, means, yerr=np.minimum(reach, 0.99 * means), color=colour, marker=MARKERS[number % len(MARKERS)],
            markersize=4, linewidth=1.4, capsize=2, label=series.label,
        )  # fmt: skip
        bounds = [by_horizon[horizon][0].bound for horizon in x]
        if is_bounded and None not in bounds:
            axes.plot(x, [bound or 0.0 for bound in bounds], color=colour, linewidth=0.9, linestyle="--")
        lowest = min(lowest, float(means[-1]))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    horizons = sorted({measurement.horizon for measurement in measurements})
    if is_bounded and len(horizons) > 1:
        _guide(axes, horizons, 0.7 * lowest)
    axes.axvspan(fitted_from / 1.15, horizons[-1] * 1.15, color=GREY, alpha=0.07, linewidth=0)
    _finish(axes, title, "T", NORM[quantity])
