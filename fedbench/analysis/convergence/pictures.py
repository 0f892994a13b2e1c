"""Figures of a convergence study: the theorems' quantities against T in log-log, each kind in a panel of its own."""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedbench.analysis.convergence.scalings import Quantity, value_of
from fedbench.analysis.convergence.series import Measurement, Series
from fedbench.analysis.convergence.theory import RATE
from fedbench.report.palette import LINES
from fedbench.tables.seed_statistics import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_PER_INCH = 130
GREY = "#6b6b6b"
MARKERS = "osD^vPX"

NORM = {"whole": r"mean of $\|\nabla f(w_t)\|^2$", "masked": r"mean of $\|S_t \odot \nabla f(w_t)\|^2$"}
"""The quantities as they are written at an axis."""


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
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


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
        end = horizons[-1]
        guide = [0.7 * lowest * (horizon / end) ** RATE for horizon in horizons]
        axes.plot(horizons, guide, color=GREY, linewidth=1.2, linestyle=":", label="slope -1/2")
    axes.axvspan(fitted_from / 1.15, horizons[-1] * 1.15, color=GREY, alpha=0.07, linewidth=0)
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel("T")
    axes.set_ylabel(NORM[quantity])
    axes.grid(True, which="major", color="#d5d8de", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=6.5, frameon=False)
