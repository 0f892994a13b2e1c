"""`fedbench analyze convergence RUN...`: the running mean of the squared gradient norms that recorded runs measured.

A run with `analysis.step_norms` has, for each local step, the mean over the clients of the norm of their gradients over
the parameters that train. In a partial round this is the masked gradient, in a full one the whole. Unlike what the
theorems bound, it is the norm of a minibatch's gradient, at each client's own parameters: its noise stays when the
gradient of f is gmethod.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.algorithms.base import Values
from fedbench.analysis.convergence.pictures import RunningMean, recorded_picture
from fedbench.analysis.convergence.problem_page import NEVER_COMPARED
from fedbench.analysis.convergence.scalings import Quantity
from fedbench.analysis.convergence.slopes import fit
from fedbench.analysis.recorded_model import RecordedModel
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisSettings
from fedbench.config.identity import method_settings
from fedbench.errors import ConfigError
from fedbench.records.measured import STEPS
from fedbench.records.reader import load_measured, recorded_checksums
from fedbench.records.recorded_analysis import ShownTable
from fedbench.records.step_plot import StepCourse
from fedbench.tables.seed_statistics import INTERVAL, Spread

FITTED_PART = 8
"""A line is fitted from 1/8 of a run's steps on, that is over the last three doublings of T."""

POINTS_PER_DOUBLING = 16
"""Points, evenly spaced in log T, at which a running mean is drawn, written and fitted."""

FEWEST_STEPS = 16
"""Local steps of a run, at least, to fit a line."""

SCHEMA = pa.schema(
    [
        ("series", pa.string()),
        ("run", pa.string()),
        ("seed", pa.int64()),
        ("quantity", pa.string()),
        ("step", pa.int64()),
        ("running_mean", pa.float64()),
    ]
)
"""`convergence.parquet`: one row a run and T. step: T, the local steps of each client so far. running_mean: the mean
over them of the squared mean norm of the clients' gradients. quantity: masked where the run has partial rounds, else
whole."""


@dataclass(frozen=True)
class GradientCourse:
    """The gradient norms of a recorded run.

    Attributes:
        model: the run.
        quantity: masked where the run has partial rounds, else whole.
        squares: float64 [T], for each local step the square of the mean norm over the clients.
    """

    model: RecordedModel
    quantity: Quantity
    squares: Values

    @classmethod
    def of(cls, model: RecordedModel) -> "GradientCourse":
        """The gradient norms that a run measured.

        Raises:
            ConfigError: it did not measure them, or made too few steps.
            DataError: the table is damaged.
        """
        directory, run = model.experiment.directory, model.experiment.run
        sums = recorded_checksums(directory)
        if STEPS not in sums:
            raise ConfigError(f"{directory}: has no {STEPS}; measure its gradients by analysis.step_norms=true")
        course = StepCourse.of(load_measured(directory, STEPS, sums), "gradient_norm")
        squares: Values = np.square(course.mean)
        if len(squares) < FEWEST_STEPS:
            raise ConfigError(f"{directory}: has {len(squares)} local steps, a slope needs {FEWEST_STEPS} at least")
        is_partial = "partial" in run.rounds["phase"].to_pylist()
        return cls(model, "masked" if is_partial else "whole", squares)

    @property
    def settings(self) -> str:
        """What makes the run's method, seed aside: runs that agree in it are one series."""
        run = self.model.experiment.run
        return json.dumps(method_settings(run.config, run.description.own_code), sort_keys=True)

    def running_mean(self, horizons: npt.NDArray[np.int64]) -> Values:
        """float64, the mean of the first T squares, for each T of `horizons`."""
        means: Values = np.cumsum(self.squares)[horizons - 1] / horizons
        return means


@dataclass(frozen=True)
class MethodCourses:
    """Runs of one method with several seeds, over the steps that all of them made.

    Attributes:
        label: what it is called.
        courses: one for each run.
    """

    label: str
    courses: tuple[GradientCourse, ...]

    @property
    def quantity(self) -> Quantity:
        """The name of the gradient that was measured: masked or whole."""
        return self.courses[0].quantity

    @property
    def horizons(self) -> npt.NDArray[np.int64]:
        """int64, the numbers of steps T at which running means are taken, evenly spaced in log T."""
        longest = min(len(course.squares) for course in self.courses)
        count = int(np.log2(longest) * POINTS_PER_DOUBLING) + 1
        return np.unique(np.geomspace(1, longest, count).round().astype(np.int64))

    @property
    def exponents(self) -> Spread:
        """The exponent of T of each run, over the later part of its steps."""
        later = self.horizons[self.horizons * FITTED_PART >= self.horizons[-1]]
        return Spread.of(fit(later.tolist(), course.running_mean(later).tolist()) for course in self.courses)

    def mean_curve(self) -> RunningMean:
        """The mean of the running means over the runs, as it is drawn."""
        horizons = self.horizons
        means = np.mean([course.running_mean(horizons) for course in self.courses], axis=0)
        return RunningMean(self.label, horizons, means)


class RecordedConvergence(AnalysisSettings):
    """The running mean of the squared norms of the clients' gradients, against the number of local steps."""

    kind: ClassVar[str] = "convergence"

    def perform(self, models: Sequence[RecordedModel], progress: Progress) -> Analysis:
        """Read what the runs measured, and fit a line to each.

        Raises:
            ConfigError: a run did not measure its gradients, or made too few steps.
        """
        courses: list[GradientCourse] = []
        for done, model in enumerate(models):
            progress(done, len(models), model.label)
            courses.append(GradientCourse.of(model))
        methods = courses_by_method(courses)
        quantities: list[Quantity] = ["whole", "masked"]
        present = [quantity for quantity in quantities if any(method.quantity == quantity for method in methods)]
        curves = {
            quantity: [method.mean_curve() for method in methods if method.quantity == quantity] for quantity in present
        }
        picture = Picture(
            "convergence",
            "Running means of squared gradient norms against T, in log-log",
            f"T counts the local steps of each client. Lines are fitted from 1/{FITTED_PART} of the steps on. The "
            f"dotted line has the slope -1/2. {NEVER_COMPARED}",
            recorded_picture(curves),
        )
        return Analysis(
            kind=self.kind,
            title="Convergence: measured gradient norms against T",
            intro=(
                "For each local step, the square of the mean norm of the clients' gradients over the parameters that "
                "train, and its mean over the first T steps. These are gradients of minibatches, at each client's own "
                "parameters: their noise stays when the gradient of f is gone, so that the mean stops falling there. "
                "The theorems' rates hold for the gradient of f, and for step sizes that fall as 1 / sqrt(T); -1/2 is "
                "drawn beside.",
                NEVER_COMPARED,
            ),
            models=tuple(model.label for model in models),
            settings=self.model_dump(mode="json"),
            data={"convergence": _rows(methods)},
            tables=tuple(
                _table(quantity, [method for method in methods if method.quantity == quantity]) for quantity in present
            ),
            pictures=(picture,),
            metrics={f"exponent/{method.label}/{method.quantity}": method.exponents.mean for method in methods},
        )


def courses_by_method(courses: Sequence[GradientCourse]) -> list[MethodCourses]:
    """The runs, those of one method with several seeds together, in the order in which methods come first."""
    by_settings: dict[str, list[GradientCourse]] = {}
    for course in courses:
        by_settings.setdefault(course.settings, []).append(course)
    methods: list[MethodCourses] = []
    for group in by_settings.values():
        model = group[0].model
        label = model.label if len(group) == 1 else f"{model.called or model.experiment.run.name}, {len(group)} seeds"
        same = sum(method.label == label or method.label.startswith(f"{label} (") for method in methods)
        methods.append(MethodCourses(f"{label} ({same + 1})" if same else label, tuple(group)))
    return methods


def _table(quantity: Quantity, methods: Sequence[MethodCourses]) -> ShownTable:
    names = {
        "whole": ("the whole gradient, in runs of full updates alone", "FedAvg's"),
        "masked": ("the gradient of the layer groups that train", "FedPart's"),
    }
    what, theorem = names[quantity]
    rows = []
    for method in methods:
        interval = method.exponents.interval
        shown = "one run" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        curve = method.mean_curve()
        cells = (str(len(method.courses)), f"{curve.horizons[-1]:,}", f"{method.exponents.mean:.3f}", shown)
        rows.append((method.label, (*cells, f"{curve.means[-1]:.4g}")))
    return ShownTable(
        f"Running mean of the squared norm against T: {what}",
        "runs",
        ("runs", "steps T", "exponent", INTERVAL, "mean at T"),
        tuple(rows),
        (f"The counterpart of what {theorem} theorem bounds, with minibatch noise. Intervals are over runs.",),
    )


def _rows(methods: Sequence[MethodCourses]) -> pa.Table:
    """The running means with `SCHEMA`."""
    tables = []
    for method in methods:
        horizons = method.horizons
        for course in method.courses:
            run = course.model.experiment.run
            columns = {
                "series": [method.label] * len(horizons),
                "run": [course.model.experiment.directory.name] * len(horizons),
                "seed": [run.seed] * len(horizons),
                "quantity": [method.quantity] * len(horizons),
                "step": horizons,
                "running_mean": course.running_mean(horizons),
            }
            tables.append(pa.table(columns, schema=SCHEMA))
    return pa.concat_tables(tables)
