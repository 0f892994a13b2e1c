"""Figures of a run: accuracy against rounds, bytes and FLOPs, and what each client holds.

Drawn with matplotlib's `Figure` alone, so that no global state is touched and no display is needed; matplotlib
is imported when a figure is asked for. The colours are told apart by colour-blind readers (Okabe and Ito 2008).
"""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.records import RunDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#6B6B6B"
DOTS_PER_INCH = 150
MOST_NUMBERED_CELLS = 200
MOST_TICKS = 25


def figures(rounds: pa.Table, run: RunDescription) -> "dict[str, Figure]":
    """Test accuracy in percent, against three measures of effort.

    Args:
        rounds: a run's rounds, with `ROUND_SCHEMA`.
        run: what is known of the run; its title becomes the figures'.

    Returns:
        `accuracy_by_round`, `accuracy_by_traffic` (uplink plus downlink, MB of 10^6 bytes, cumulative) and
        `accuracy_by_compute` (client TFLOP, cumulative). Where layer groups are trained in turn, a strip below
        shows which group each round trained.
    """
    traffic = np.cumsum(_column(rounds, "uplink_bytes") + _column(rounds, "downlink_bytes")) / 1e6
    compute = np.cumsum(_column(rounds, "client_flops")) / 1e12
    return {
        "accuracy_by_round": _accuracy(rounds, run, _column(rounds, "round"), "round"),
        "accuracy_by_traffic": _accuracy(rounds, run, traffic, "uplink + downlink, all clients, cumulative (MB)"),
        "accuracy_by_compute": _accuracy(rounds, run, compute, "client compute, cumulative (TFLOP)"),
    }


def partition_figure(run: RunDescription) -> "Figure":
    """How many samples of each class (rows) each client (columns) holds, and above, how many in all."""
    counts = np.asarray(run.client_class_counts, np.int64).reshape(-1, len(run.class_names)).T
    classes, clients = counts.shape
    figure = _figure(width=min(16.0, max(6.0, 2.5 + 0.16 * clients)), height=min(12.0, max(4.0, 2.3 + 0.25 * classes)))
    totals, cells = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(2.5, min(5.0, 0.3 * classes))])
    totals.bar(np.arange(clients), counts.sum(axis=0), width=0.85, color=GREY)
    totals.set_ylabel("samples")
    _finish(totals)
    figure.suptitle(f"What each client holds: {run.dataset_name}, {clients} clients, {counts.sum():,} samples")

    held = np.ma.masked_equal(counts, 0)
    image = cells.imshow(held, aspect="auto", interpolation="nearest", cmap=_shades_of_blue(), vmin=0)
    cells.set_xlabel("client")
    cells.set_ylabel("class")
    _label(cells, "x", [str(client) for client in range(clients)])
    _label(cells, "y", list(run.class_names))
    figure.colorbar(image, ax=cells, label="samples (white: none)", pad=0.02)
    if counts.size <= MOST_NUMBERED_CELLS:
        half = counts.max(initial=0) / 2  # from here on the shade is dark
        for (label, client), count in np.ndenumerate(counts):
            if count:
                cells.text(
                    client, label, str(count), ha="center", va="center", fontsize=7,
                    color="white" if count > half else "black",
                )  # fmt: skip
    return figure


def save_figures(rounds: pa.Table, run: RunDescription, directory: Path) -> list[Path]:
    """Write all figures of a run into `directory` as NAME.png.

    Raises:
        OSError: they cannot be written.
    """
    drawn = figures(rounds, run)
    if run.client_class_counts and run.class_names:
        drawn["partition"] = partition_figure(run)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DOTS_PER_INCH)
    return paths


def _accuracy(rounds: pa.Table, run: RunDescription, x: Values, label: str) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    accuracy = 100 * _column(rounds, "test_accuracy")
    shown = np.isfinite(accuracy) & np.isfinite(x)
    partial = "partial" in rounds["phase"].to_pylist()
    figure = _figure(width=7.0, height=5.0 if partial else 4.3)
    figure.suptitle(run.title)
    if partial:
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        _draw_schedule(strip, rounds, x)
        lowest = strip
    else:
        axes = lowest = figure.subplots()
    marker = "o" if shown.sum() <= 60 else None
    axes.plot(x[shown], accuracy[shown], color=BLUE, linewidth=1.6, marker=marker, markersize=3.5)
    axes.set_ylabel("test accuracy (%)")
    axes.margins(y=0.08)
    if shown.any():
        best = int(np.nanargmax(np.where(shown, accuracy, np.nan)))
        axes.axhline(accuracy[best], color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"best {accuracy[best]:.2f} % (round {rounds['round'][best].as_py()})",
            (0.0, accuracy[best]), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
            fontsize=8, color=GREY,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", color=GREY)
    lowest.set_xlabel(label)
    if label == "round":
        lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)
    return figure


def _draw_schedule(axes: "Axes", rounds: pa.Table, x: Values) -> None:
    """One bar per stretch of rounds with the same layer group, as wide as what those rounds cost."""
    from matplotlib.ticker import MaxNLocator

    groups = [int(group) for group in rounds["group"].to_pylist()]
    height = max(1, max(groups) + 1)
    edges = np.concatenate([[0.0], x]) if _is_cumulative(x, rounds) else np.concatenate([x - 0.5, x[-1:] + 0.5])
    starts = [0, *(i for i in range(1, len(groups)) if groups[i] != groups[i - 1]), len(groups)]
    for first, stop in pairwise(starts):
        group, span = groups[first], (edges[first], edges[stop] - edges[first])
        if group < 0:
            axes.broken_barh([span], (-0.5, height), color=GREY, alpha=0.25, linewidth=0)
        else:
            axes.broken_barh([span], (group - 0.5, 1), color=ORANGE, linewidth=0)
    axes.set_ylim(-0.5, height - 0.5)
    axes.set_ylabel("layer group\n(grey: all)", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _finish(axes)


def _is_cumulative(x: Values, rounds: pa.Table) -> bool:
    return not np.array_equal(x, _column(rounds, "round"))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _shades_of_blue() -> "ListedColormap":
    """Shades that start visibly darker than the white of an empty cell."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"](np.linspace(0.12, 1.0, 256)))


def _finish(axes: "Axes") -> None:
    axes.grid(True, linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: "Axes", which: Any, names: list[str]) -> None:
    """Name every row or column, or every n-th where there are many."""
    step = -(-len(names) // MOST_TICKS)
    step = next((nice for nice in (1, 2, 5, 10, 20, 50) if nice >= step), step)
    ticks = range(0, len(names), step)
    getattr(axes, f"set_{which}ticks")(list(ticks), [names[i] for i in ticks])


def _column(rounds: pa.Table, name: str) -> Values:
    """A column as float64, NaN where it is null."""
    values: Values = rounds[name].cast(pa.float64()).to_numpy()
    return values
