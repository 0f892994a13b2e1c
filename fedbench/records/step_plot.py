"""A figure of the norms of local steps, continuous across aggregations, full updates beside partial ones.

It is the counterpart of Figure 1 of FedPart (Wang, Liu, Niu, Guo, Tang, NeurIPS 2024, arXiv 2410.11559), which shows
the size of the update step jumping after each aggregation of full updates.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.records.figure_style import BLUE, GREY, ORANGE, finish_axes, title_figure
from fedbench.records.observers import RunDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]

NORMS = {"step_norm": "|| w(k+1) - w(k) ||", "gradient_norm": "norm of the gradient"}

PHASE_COLOURS = {"full": BLUE, "partial": ORANGE}

MOST_LINES = 200
"""Aggregations that are marked by a line; where there are more, the lines would hide the curve."""

PROFILE = 8
"""Steps before and after an aggregation that its profile shows, at most."""


@dataclass(frozen=True)
class StepCourse:
    """The norms of a run's local steps as mean over the clients, whole, in the order in which they were made.

    Attributes:
        rounds: int64 [n], the round of each step.
        mean, q25, q75: float64 [n].
    """

    rounds: npt.NDArray[np.int64]
    mean: Values
    q25: Values
    q75: Values

    @classmethod
    def of(cls, steps: pa.Table, norm: str) -> "StepCourse":
        """The course of one norm.

        Args:
            steps: with `STEP_SCHEMA`.
            norm: a key of `NORMS`.
        """
        whole = steps.filter(pc.equal(steps["group"], -1)).sort_by([("round", "ascending"), ("step", "ascending")])
        columns = [whole[f"{norm}_{column}"].to_numpy() for column in ("mean", "q25", "q75")]
        return cls(whole["round"].to_numpy().astype(np.int64), *columns)

    @property
    def aggregations(self) -> npt.NDArray[np.int64]:
        """The places of the steps that are the first after an aggregation."""
        return np.flatnonzero(np.diff(self.rounds)) + 1


def step_figure(steps: pa.Table, rounds: pa.Table, run: RunDescription) -> "Figure":
    """The norms of all local steps, and their mean profile around an aggregation, for full and for partial updates.

    Args:
        steps: with `STEP_SCHEMA`.
        rounds: of the same run, with `ROUND_SCHEMA`.
        run: what is known of the run.
    """
    from matplotlib.figure import Figure

    phases = phases_of(rounds)
    trained = trained_sets(rounds)
    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    title_figure(figure, run.title)
    panels = figure.subplots(2, 2, sharex="col", width_ratios=[3, 1])
    for row, (norm, label) in enumerate(NORMS.items()):
        course = StepCourse.of(steps, norm)
        draw_course(panels[row, 0], course, phases, trained)
        draw_profiles(panels[row, 1], course, phases, trained)
        panels[row, 0].set_ylabel(f"{label}\n(mean and quartiles over clients)")
    panels[1, 0].set_xlabel("local step since the start; dotted: aggregations")
    panels[1, 1].set_xlabel("local step after the aggregation")
    panels[0, 1].set_title("around an aggregation, relative\nto the mean before it", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    panels[0, 0].legend(by_label.values(), by_label.keys(), loc="upper right", frameon=False, ncols=2, fontsize=8)
    return figure


def phases_of(rounds: pa.Table) -> dict[int, str]:
    """{round: its phase}.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    return dict(zip(rounds["round"].to_pylist(), rounds["phase"].to_pylist(), strict=True))


def trained_sets(rounds: pa.Table) -> list[frozenset[int] | None]:
    """For each round the layer groups that any accepted client trained; None where it is not recorded.

    Args:
        rounds: with `ROUND_SCHEMA`.
    """
    counts = rounds["group_clients"].to_pylist()
    return [None if row is None else frozenset(group for group, count in enumerate(row) if count) for row in counts]


def is_comparable(before: int, after: int, phases: Mapping[int, str], trained: Sequence[frozenset[int] | None]) -> bool:
    """Whether two rounds are of the same phase and trained the same layer groups; else their norms are of others."""
    return trained[before] is not None and trained[before] == trained[after] and phases[before] == phases[after]


def profiles(
    course: StepCourse, phases: Mapping[int, str], trained: Sequence[frozenset[int] | None]
) -> dict[str, tuple[int, Values]]:
    """{phase: (number of aggregations, mean norm of the steps around one, relative to those before it)}.

    Only aggregations between rounds that are comparable count. As many steps as every round has, but at most `PROFILE`,
    are shown on either side, and the mean of those before is 1; the first step after the aggregation is in the middle.
    """
    starts = course.aggregations
    width = int(min(PROFILE, np.diff([0, *starts, len(course.rounds)]).min())) if len(starts) else 0
    rows: dict[str, list[Values]] = {}
    for start in starts:
        before, after = int(course.rounds[start - 1]), int(course.rounds[start])
        level = course.mean[start - width : start].mean()
        if is_comparable(before, after, phases, trained) and level > 0:
            rows.setdefault(phases[after], []).append(course.mean[start - width : start + width] / level)
    return {phase: (len(profiles), np.mean(profiles, axis=0)) for phase, profiles in rows.items()}


def draw_course(
    axes: "Axes", course: StepCourse, phases: Mapping[int, str], trained: Sequence[frozenset[int] | None]
) -> None:
    """The norms of all steps, full and partial rounds in different colours, with a line at each aggregation.

    Args:
        axes: to draw on.
        course: the norms.
        phases: {round: full or partial}.
        trained: as `trained_sets` gives them.
    """
    borders = [0, *course.aggregations.tolist(), len(course.rounds)]
    for first, stop in itertools.pairwise(borders):
        here = int(course.rounds[first])
        colour = PHASE_COLOURS.get(phases[here], GREY)
        x = np.arange(first, stop)
        axes.fill_between(x, course.q25[first:stop], course.q75[first:stop], color=colour, alpha=0.2, linewidth=0)
        if stop < len(course.rounds) and is_comparable(here, int(course.rounds[stop]), phases, trained):
            x = np.arange(first, stop + 1)  # to the first step after the aggregation, so that a jump is seen
        axes.plot(x, course.mean[x], color=colour, linewidth=1.0, label=f"{phases[here]} updates")
    if len(borders) <= MOST_LINES:
        for border in borders[1:-1]:
            axes.axvline(border - 0.5, color=GREY, linewidth=0.5, linestyle=":", alpha=0.7)
    axes.set_ylim(bottom=0)
    finish_axes(axes)


def draw_profiles(
    axes: "Axes", course: StepCourse, phases: Mapping[int, str], trained: Sequence[frozenset[int] | None]
) -> None:
    """The mean profile of the norms around an aggregation; arguments as for `draw_course`."""
    drawn = profiles(course, phases, trained)
    for phase, (count, profile) in drawn.items():
        x = np.arange(len(profile)) - len(profile) // 2
        colour = PHASE_COLOURS.get(phase, GREY)
        axes.plot(x, profile, color=colour, marker="o", markersize=3, linewidth=1.2, label=f"{phase} ({count})")
    if drawn:
        axes.axvline(-0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)
    else:
        text = "no two rounds after one another\ntrained the same layer groups"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=8)
    finish_axes(axes)
