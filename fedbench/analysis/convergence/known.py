"""`fedbench analyze convergence`: the study on known problems as an analysis, with its tables and figures."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from fedbench.analysis.convergence.problem_page import NEVER_COMPARED, ProblemPage, delay_table
from fedbench.analysis.convergence.rows import measurement_rows, slope_rows
from fedbench.analysis.convergence.scalings import CountSlope, HorizonSlope
from fedbench.analysis.convergence.series import ProblemName, constants
from fedbench.analysis.convergence.study import HORIZONS, Study
from fedbench.analysis.results import Analysis, Picture, Progress
from fedbench.analysis.settings import AnalysisOptions
from fedbench.records.recorded_analysis import ShownTable

UPPER_BOUND = (
    "The theorems bound from above: falling faster than T^(-1/2) does not contradict them, nor do a few horizons over "
    "which a quantity falls more slowly; being above a bound would."
)


class Convergence(AnalysisOptions):
    """The quantities of the convergence theorems, on problems whose constants are known, and on digits.

    Attributes:
        problems: The problems: quadratic, logistic, digits.
        seeds: Seeds of the runs; intervals are over seeds.
        scale: Factor on all horizons T, a power of two from 1/8 on.
    """

    kind: ClassVar[str] = "convergence"

    problems: tuple[ProblemName, ...] = Field(tuple(HORIZONS), min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    scale: float = Field(1.0, ge=0.125, le=64)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("must be different whole numbers from 0 on")
        return seeds

    @field_validator("problems")
    @classmethod
    def _in_order(cls, problems: tuple[ProblemName, ...]) -> tuple[ProblemName, ...]:
        return tuple(problem for problem in HORIZONS if problem in problems)

    @field_validator("scale")
    @classmethod
    def _power_of_two(cls, scale: float) -> float:
        if not float(scale * 8).is_integer() or int(scale * 8) & (int(scale * 8) - 1):
            raise ValueError("must be a power of two: 0.125, 0.25, 0.5, 1, 2, ...")
        return scale

    @property
    def study(self) -> Study:
        """What is run."""
        return Study(self.problems, self.seeds, self.scale)

    def perform_alone(self, progress: Progress, processes: int | None = None) -> Analysis:
        """Run the study; it needs no recorded run.

        Args:
            progress: told how far it is.
            processes: as for `Study.measure`.
        """
        study = self.study
        measurements = study.measure(progress, processes)
        slopes: list[HorizonSlope | CountSlope] = []
        tables: list[ShownTable] = []
        pictures: list[Picture] = []
        for problem in study.problems:
            of_problem = [measured for measured in measurements if measured.series.problem == problem]
            page = ProblemPage(study, problem, of_problem)
            slopes += [*page.bounded, *page.unbounded, *page.counts]
            tables += page.tables()
            pictures.append(page.picture())
        return Analysis(
            kind=self.kind,
            title="Convergence: what the theorems bound, against T",
            intro=(*_introduction(study), UPPER_BOUND, NEVER_COMPARED),
            models=(),
            settings=self.model_dump(mode="json"),
            data={"convergence": measurement_rows(measurements), "slopes": slope_rows(slopes)},
            tables=(*tables, delay_table(measurements)),
            pictures=tuple(pictures),
            metrics=_metrics(slopes),
        )


def _introduction(study: Study) -> list[str]:
    """What was done, in sentences."""
    sentences = [
        f"Each series was run for every T with {len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}, each time "
        "with the constant step size for this T: gamma = min(1/L, sqrt(2 Delta M N / (L sigma^2 T))) a round, and for "
        "OrMo, with momentum beta = 0.9, eta = (1 - beta) min(1 / (2 K L), sqrt(2 Delta / (L sigma^2 T))). T counts "
        "rounds, or arrivals; with several local steps a round, each has its share of gamma. All clients take part in "
        "every round. Partial updates train one of M layer groups after the other, without full updates between.",
    ]
    for problem in study.problems:
        known = constants(problem, 1, False)
        values = f"L = {known.smoothness:.3g}, sigma^2 = {known.variance:.3g}, Delta = {known.gap:.3g}"
        sentences.append(
            {
                "quadratic": f"quadratic: a quadratic with Gaussian noise on the gradients ({values}; sigma^2 = 16 for "
                "OrMo).",
                "logistic": f"logistic: logistic regression with an L2 penalty, on clients with labels of their own "
                f"({values}).",
                "digits": "digits: a network of four layers with tanh on scikit-learn's digits, in fedbench's own "
                f"engine, clients with few classes each ({values}, the first two estimated at the start and after a "
                "preliminary run, f(w_0) in place of Delta).",
            }[problem]
        )
    return sentences


def _metrics(slopes: Sequence[HorizonSlope | CountSlope]) -> dict[str, float]:
    """The exponents by name."""
    return {
        f"exponent/{slope.problem}/{slope.label}/{slope.quantity}/{slope.against}": slope.slope.values.mean
        for slope in slopes
    }
