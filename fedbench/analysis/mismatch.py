"""How local steps jump at aggregations, side by side over several runs (FedPart, arXiv 2410.11559, Figure 1)."""

import io
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.errors import ConfigError
from fedbench.records.figure_style import DOTS_PER_INCH, GREY, finish_axes
from fedbench.records.measured import STEPS
from fedbench.records.reader import load_measured
from fedbench.records.recorded_analysis import ShownTable
from fedbench.records.step_jumps import geometric_mean, jumps
from fedbench.records.step_plot import (
    NORMS,
    StepCourse,
    draw_course,
    phases_of,
    profiles,
    trained_sets,
)

SHORT = {"step_norm": "step", "gradient_norm": "gradient"}

PHASES = ("full", "partial")


class Mismatch(AnalysisSettings):
    """The norms of local steps and gradients around aggregations."""

    kind: ClassVar[str] = "mismatch"

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Compare the recorded norms; nothing is computed with the models themselves."""
        labels = tuple(model.label for model in models)
        steps = [self._steps(model) for model in models]
        rounds = [model.experiment.run.rounds for model in models]
        recorded = {
            (label, norm, phase): {i: jump for i, jump in enumerate(jumps(table, norm, phase)) if jump is not None}
            for label, table in zip(labels, rounds, strict=True)
            for norm in NORMS
            for phase in PHASES
        }
        return Analysis(
            kind=self.kind,
            title="Local steps around aggregations",
            intro=(
                "The norm of each local step || w(k+1) - w(k) || and of its gradient, over all parameters that train, "
                "mean over the clients, continuous across aggregations.",
                "A jump is the norm of the first step after an aggregation over that of the last step before it, as "
                "geometric mean over the aggregations between two rounds of one phase that trained the same layer "
                "groups; 1: no jump.",
                "An optimizer that begins anew in every round jumps by itself: Adam's first step has the size of its "
                "learning rate in every parameter. A run of one client, where nothing is averaged, shows how much.",
            ),
            models=labels,
            settings=self.model_dump(),
            data={"jumps": _rows(recorded)},
            tables=(_shown(labels, recorded),),
            pictures=(
                Picture(
                    "steps",
                    "Local steps since the start",
                    "Mean and quartiles over the clients; blue: full updates, orange: partial ones; dotted: "
                    "aggregations.",
                    _courses(labels, steps, rounds),
                ),
                Picture(
                    "profiles",
                    "Around an aggregation",
                    "Mean over the aggregations, relative to the mean of the steps before; solid: full updates, "
                    "dashed: partial ones.",
                    _profiles(labels, steps, rounds),
                ),
            ),
            metrics={
                f"{SHORT[norm]}_jump_{phase}/{label}": mean
                for (label, norm, phase), values in recorded.items()
                if (mean := geometric_mean(list(values.values()))) is not None
            },
        )

    @staticmethod
    def _steps(model: RecordedModel) -> pa.Table:
        if not model.experiment.run.config.get("analysis", {}).get("step_norms"):
            raise ConfigError(f"{model.label}: recorded no norms of steps; run it with analysis.step_norms=true")
        return load_measured(model.experiment.directory, STEPS)


SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("norm", pa.string()),
        ("phase", pa.string()),
        ("round", pa.int32()),
        ("jump", pa.float64()),
    ]
)
"""`jumps.parquet`: one row for each aggregation between two comparable rounds, of which `round` is the second."""


Jumps = Mapping[tuple[str, str, str], Mapping[int, float]]
"""{(run, norm, phase): {round: jump}}."""


def _rows(recorded: Jumps) -> pa.Table:
    """The jumps with `SCHEMA`."""
    rows = [
        {"model": label, "norm": norm, "phase": phase, "round": index, "jump": jump}
        for (label, norm, phase), values in recorded.items()
        for index, jump in values.items()
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _shown(labels: Sequence[str], recorded: Jumps) -> ShownTable:
    kinds = [(norm, phase) for norm in NORMS for phase in PHASES]

    def text(values: Mapping[int, float]) -> str:
        mean = geometric_mean(list(values.values()))
        return "-" if mean is None else f"{mean:.2f} ({len(values)})"

    return ShownTable(
        "Jumps at aggregations (number of aggregations)",
        "model",
        tuple(f"{SHORT[norm]}, {phase} updates" for norm, phase in kinds),
        tuple((label, tuple(text(recorded[label, norm, phase]) for norm, phase in kinds)) for label in labels),
    )


def _courses(labels: Sequence[str], steps: Sequence[pa.Table], rounds: Sequence[pa.Table]) -> bytes:
    """One row of panels for each run: the norms of its steps, and of their gradients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 0.5 + 2.2 * len(labels)), layout="constrained")
    panels = figure.subplots(len(labels), len(NORMS), squeeze=False)
    for row, (label, of_run, table) in enumerate(zip(labels, steps, rounds, strict=True)):
        for column, (norm, words) in enumerate(NORMS.items()):
            draw_course(panels[row, column], StepCourse.of(of_run, norm), phases_of(table), trained_sets(table))
            panels[row, column].set_title(f"{label}: {words}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("local step since the start")
    return _png(figure)


def _profiles(labels: Sequence[str], steps: Sequence[pa.Table], rounds: Sequence[pa.Table]) -> bytes:
    """One panel for each norm, with all runs."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.5), layout="constrained")
    panels = figure.subplots(1, len(NORMS))
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for axes, (norm, words) in zip(panels, NORMS.items(), strict=True):
        for place, (label, of_run, table) in enumerate(zip(labels, steps, rounds, strict=True)):
            course = StepCourse.of(of_run, norm)
            for phase, (count, profile) in profiles(course, phases_of(table), trained_sets(table)).items():
                x = np.arange(len(profile)) - len(profile) // 2
                style = "-" if phase == "full" else "--"
                text = f"{label}, {phase} ({count})"
                axes.plot(x, profile, style, color=colours[place % len(colours)], marker="o", markersize=3, label=text)
        axes.axvline(-0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        axes.set_title(words, fontsize=9)
        axes.set_xlabel("local step after the aggregation")
        finish_axes(axes)
        axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def _png(figure: object) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)  # type: ignore[attr-defined]
    return content.getvalue()
