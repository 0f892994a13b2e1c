"""Figures of a run: how good its model is against what it took, staleness, and what each client holds.

Drawn with matplotlib's `Figure` alone, so that no global state is touched and no display is needed; matplotlib
is imported when a figure is asked for. The colours are told apart by colour-blind readers (Okabe and Ito 2008).
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.records.figure_style import BLUE, DOTS_PER_INCH, GREY, ORANGE, finish_axes, title_figure
from fedbench.records.headline import as_recorded, best_rounds, chosen_on, score_column
from fedbench.records.metrics import METRICS
from fedbench.records.observers import RunDescription
from fedbench.records.step_plot import step_figure
from fedbench.records.timeline import timeline_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]

MOST_NUMBERED_CELLS = 200
MOST_TICKS = 25
MOST_BARS = 60
FAINTEST = 0.15
"""Opacity of a layer group that hardly any update of a round trained."""

MOST_GROUPS, LONGEST_GROUP_NAME = 21, 18
"""Layer groups that are named beside a strip, and letters of a name."""

LONG_TAIL = 6
"""Bars have a logarithmic scale where the largest value is this many times the mean, so that the tail is seen."""

WIDE_RANGE = 20
"""A metric that is no share has a logarithmic scale where its largest value is this many times its smallest."""

CLOCK = "time on the run's clock (s)"
EPOCHS = "epochs (samples trained on / training samples)"


def figures(rounds: pa.Table, run: RunDescription, arrivals: pa.Table | None = None) -> "dict[str, Figure]":
    """The metric that the task is judged by on test against several measures of effort, and how stale updates were.

    Args:
        rounds: a run's rounds, with `ROUND_SCHEMA`.
        run: what is known of the run; its title becomes the figures'.
        arrivals: an asynchronous run's arrivals, with `ARRIVAL_SCHEMA`.

    Returns:
        `accuracy_by_round`, `accuracy_by_traffic` (uplink plus downlink, MB of 10^6 bytes, cumulative) and
        `accuracy_by_compute` (client TFLOP, cumulative); `accuracy_by_time` and `accuracy_by_epochs` where the rounds
        have them, all with the name of the task's own metric in place of `accuracy`; `staleness`, a histogram, where an
        update was accepted. Where layer groups are trained in turn, a strip below shows which groups each round
        trained, the darker the more of its updates.
    """
    name = run.headline.name
    traffic = np.asarray(METRICS["total_bytes"].by_round(rounds), np.float64) / 1e6
    compute = np.asarray(METRICS["client_flops"].by_round(rounds), np.float64) / 1e12
    drawn = {
        f"{name}_by_round": _score(rounds, run, _column(rounds, "round") + 1, "round", by_round=True),
        f"{name}_by_traffic": _score(rounds, run, traffic, "uplink + downlink, all clients, cumulative (MB)"),
        f"{name}_by_compute": _score(rounds, run, compute, "client compute, cumulative (TFLOP)"),
    }
    for effort, column, label in (("time", "virtual_seconds", CLOCK), ("epochs", "epochs", EPOCHS)):
        x = _column(rounds, column)
        if np.isfinite(x).any():
            drawn[f"{name}_by_{effort}"] = _score(rounds, run, x, label)
    if arrivals is not None:
        staleness = arrivals.filter(pc.equal(arrivals["status"], "ok"))["staleness"].to_numpy()
        if len(staleness):
            drawn["staleness"] = _staleness(staleness, run)
    return drawn


def partition_figure(run: RunDescription) -> "Figure":
    """The samples of each class (rows) that each client (columns) holds, with each client's total above."""
    counts = np.asarray(run.client_class_counts, np.int64).reshape(-1, len(run.class_names)).T
    classes, clients = counts.shape
    figure = _figure(width=min(16.0, max(6.0, 2.5 + 0.16 * clients)), height=min(12.0, max(4.0, 2.3 + 0.25 * classes)))
    totals, cells = figure.subplots(2, 1, sharex=True, height_ratios=[1, max(2.5, min(5.0, 0.3 * classes))])
    totals.bar(np.arange(clients), counts.sum(axis=0), width=0.85, color=GREY)
    totals.set_ylabel("samples")
    finish_axes(totals)
    title_figure(figure, f"What each client holds: {run.dataset_name}, {clients} clients, {counts.sum():,} samples")

    held = np.ma.masked_equal(counts, 0)
    image = cells.imshow(held, aspect="auto", interpolation="nearest", cmap=_shades_of_blue(), vmin=0)
    cells.set_xlabel("client")
    cells.set_ylabel("class")
    _label(cells, "x", [str(client) for client in range(clients)])
    _label(cells, "y", list(run.class_names))
    figure.colorbar(image, ax=cells, label="samples (white: none)", pad=0.02)
    # A cell is about as wide as the figure without its margins has room for; a digit of 7 points is 4.5 points wide.
    room = 72 * (figure.get_figwidth() - 2.2) / max(1, clients)
    if counts.size <= MOST_NUMBERED_CELLS and 4.5 * len(str(counts.max(initial=0))) + 2 <= room:
        half = counts.max(initial=0) / 2  # from here on the shade is dark
        for (label, client), count in np.ndenumerate(counts):
            if count:
                cells.text(
                    client, label, str(count), ha="center", va="center", fontsize=7,
                    color="white" if count > half else "black",
                )  # fmt: skip
    return figure


def save_figures(
    rounds: pa.Table,
    run: RunDescription,
    directory: Path,
    arrivals: pa.Table | None = None,
    steps: pa.Table | None = None,
    clients: pa.Table | None = None,
) -> list[Path]:
    """Write all figures of a run into `directory` as NAME.png.

    Raises:
        OSError: they cannot be written.
    """
    drawn = figures(rounds, run, arrivals)
    if steps is not None and steps.num_rows:
        drawn["step_norms"] = step_figure(steps, rounds, run)
    if run.client_class_counts and run.class_names:
        drawn["partition"] = partition_figure(run)
    if clients is not None and (timeline := timeline_figure(rounds, clients, run, arrivals)) is not None:
        drawn["timeline"] = timeline
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DOTS_PER_INCH)
    return paths


def _score(rounds: pa.Table, run: RunDescription, x: Values, label: str, *, by_round: bool = False) -> "Figure":
    """The task's metric on test against `x`, one value a round, which `label` names.

    `by_round`: `x` is the rounds' own number.
    """
    from matplotlib.ticker import MaxNLocator

    headline = run.headline
    scores = (100 if headline.percent else 1) * _column(rounds, score_column(headline))
    shown = np.isfinite(scores) & np.isfinite(x)
    shares = shares_by_group(rounds)
    in_turn = not all(map(_is_full, shares))
    height = min(2.6, max(0.9, 0.14 * len(run.group_names)))
    figure = _figure(width=7.0, height=4.3 + (height if in_turn else 0))
    title_figure(figure, run.title)
    if in_turn:
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=[4, height])
        edges = np.concatenate([x - 0.5, x[-1:] + 0.5]) if by_round else np.concatenate([[0.0], x])
        _draw_schedule(strip, shares, run.group_names, edges)
        lowest = strip
    else:
        axes = lowest = figure.subplots()
    marker = "o" if shown.sum() <= 60 else None
    axes.plot(x[shown], scores[shown], color=BLUE, linewidth=1.6, marker=marker, markersize=3.5)
    axes.set_ylabel(f"test {headline.words}{' (%)' if headline.percent else ''}")
    if not headline.percent and shown.any() and scores[shown].max() > WIDE_RANGE * max(0.0, scores[shown].min()) > 0:
        axes.set_yscale("log")
    axes.margins(y=0.08)
    best = best_rounds(rounds)[-1] if rounds.num_rows else None
    if best is not None and shown[best]:
        text = f"{scores[best]:.2f} %" if headline.percent else as_recorded(scores[best], headline)
        axes.axhline(scores[best], color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"best {text} (round {best + 1}, chosen on {chosen_on(rounds)})",
            (0.0, scores[best]), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
            fontsize=8, color=GREY,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", color=GREY)
    lowest.set_xlabel(label)
    if by_round:
        lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish_axes(axes)
    return figure


def shares_by_group(rounds: pa.Table) -> list[tuple[float, ...] | None]:
    """For each round the share of its updates (0..1) that trained each layer group.

    None where several groups were trained and it is not recorded which, in a run of an earlier version.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    labels, recorded = rounds["group"].to_pylist(), rounds["group_clients"].to_pylist()
    phases = rounds["phase"].to_pylist()
    groups = max([1, *(len(counts) for counts in recorded if counts), *(label + 1 for label in labels)])
    has_partial = "partial" in phases or any(label >= 0 for label in labels)
    accepted = _column(rounds, "clients") - _column(rounds, "rejected_clients") - _column(rounds, "dropped_clients")
    shares: list[tuple[float, ...] | None] = []
    for phase, label, counts, updates in zip(phases, labels, recorded, accepted, strict=True):
        if label >= 0:
            shares.append(tuple(float(group == label) for group in range(groups)))
        elif counts is not None and any(counts):
            shares.append(tuple(min(1.0, count / max(updates, 1.0)) for count in counts))
        else:
            is_unknown = counts is None and phase != "full" and has_partial
            shares.append(None if is_unknown else (1.0,) * groups)
    return shares


def _is_full(share: tuple[float, ...] | None) -> bool:
    """Whether all updates trained all groups; updates of single groups, evenly spread, are at most half in each."""
    return share is not None and min(share) == max(share) and (len(share) == 1 or share[0] > 0.5)


def _draw_schedule(
    axes: "Axes", shares: Sequence[tuple[float, ...] | None], group_names: Sequence[str], edges: Values
) -> None:
    """The layer groups of each round; round i is as wide as edges[i] to edges[i + 1].

    Stretches of rounds with the same shares are one bar for each group, the darker the larger its share; rounds in
    which all updates trained all groups are one grey bar, those of which it is not known a hatched one.
    """
    groups = max((len(share) for share in shares if share is not None), default=1)
    largest = max((max(share) for share in shares if share is not None and not _is_full(share)), default=1.0)
    starts = [0, *(i for i in range(1, len(shares)) if shares[i] != shares[i - 1]), len(shares)]
    for first, stop in itertools.pairwise(starts):
        share, span = shares[first], (edges[first], edges[stop] - edges[first])
        if share is None:
            axes.broken_barh([span], (-0.5, groups), facecolor="white", edgecolor=GREY, hatch="//", linewidth=0)
        elif _is_full(share):
            axes.broken_barh([span], (-0.5, groups), color=GREY, alpha=0.25, linewidth=0)
        else:
            for group, part in enumerate(share):
                opacity = FAINTEST + (1 - FAINTEST) * part / largest
                if part:
                    axes.broken_barh([span], (group - 0.5, 1), color=ORANGE, alpha=opacity, linewidth=0)
    axes.set_ylim(-0.5, groups - 0.5)
    names = list(group_names) if len(group_names) == groups else [str(group + 1) for group in range(groups)]
    most = LONGEST_GROUP_NAME
    _label(axes, "y", [name if len(name) <= most else f"{name[: most - 1]}…" for name in names], MOST_GROUPS)
    axes.tick_params(axis="y", labelsize=6)
    unknown = ", hatched: several" if None in shares else ""
    axes.set_ylabel(f"layer group\n(grey: all{unknown})", fontsize=8)
    finish_axes(axes)


def _staleness(staleness: npt.NDArray[np.int64], run: RunDescription) -> "Figure":
    """One bar per value, or per stretch of values where there are many."""
    from matplotlib.ticker import MaxNLocator

    lowest, highest, mean = int(staleness.min()), int(staleness.max()), float(staleness.mean())
    width = _step(highest - lowest + 1, MOST_BARS)
    first = lowest - lowest % width
    counts = np.bincount((staleness - first) // width)
    figure = _figure(width=7.0, height=4.3)
    title_figure(figure, run.title)
    axes = figure.subplots()
    middles = first + width * np.arange(len(counts)) + (width - 1) / 2
    axes.bar(middles, counts, width=0.85 * width, color=BLUE)
    axes.axvline(mean, color=ORANGE, linewidth=1.6, linestyle="--", label=f"mean {mean:.1f}, largest {highest:,}")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0.0)
    axes.set_xlim(first - 0.75 * width, max(middles[-1] + 0.75 * width, first + 5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if highest - lowest > LONG_TAIL * (mean - lowest):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    each = f", bars of {width:,} values" if width > 1 else ""
    axes.set_xlabel(f"staleness (updates applied between dispatch and arrival{each})")
    axes.set_ylabel("accepted updates")
    finish_axes(axes)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _shades_of_blue() -> "ListedColormap":
    """Shades that start visibly darker than the white of an empty cell."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"](np.linspace(0.12, 1.0, 256)))


def _label(axes: "Axes", which: Any, names: list[str], most: int = MOST_TICKS) -> None:
    """Name every row or column, or every n-th where there are many."""
    ticks = range(0, len(names), _step(len(names), most))
    getattr(axes, f"set_{which}ticks")(list(ticks), [names[i] for i in ticks])


def _step(count: int, most: int) -> int:
    """The number of the `count` things that share a place so that at most `most` places are needed: 1, 2, 5, 10, ..."""
    step = 1
    for factor in itertools.cycle((2, 2.5, 2)):
        if step * most >= count:
            break
        step = int(step * factor)
    return step


def _column(rounds: pa.Table, name: str) -> Values:
    """A column as float64, NaN where it is null."""
    values: Values = rounds[name].cast(pa.float64()).to_numpy()
    return values
