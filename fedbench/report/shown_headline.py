"""The metric by which a task is judged, as a report shows it: names, unit, decimals, and which values are good."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fedbench.records.headline import ACCURACY, score_column
from fedbench.records.metrics import headline_figures
from fedbench.tables.numbers import PERCENT, Number
from fedbench.tasks.kinds import Headline

POINTS = Number(2, 100, "points", is_change=True)
ABOUT = Number(1, 100, "%")


@dataclass(frozen=True)
class ShownHeadline:
    """The metric by which the methods of one table are judged, for readers.

    Attributes:
        headline: the metric.
    """

    headline: Headline

    @property
    def words(self) -> str:
        """Its name within a sentence: "accuracy"."""
        return self.headline.words

    @property
    def title(self) -> str:
        """Its name at the beginning of a sentence: "Accuracy"."""
        return f"{self.words[0].upper()}{self.words[1:]}"

    @property
    def plural(self) -> str:
        """Several values of it: "accuracies", "MAE values"."""
        return "accuracies" if self.headline == ACCURACY else f"{self.words} values"

    @property
    def best(self) -> str:
        """Name of the figure of the best round: "best_accuracy"."""
        return headline_figures(self.headline)[0]

    @property
    def final(self) -> str:
        """Name of the figure of the last round."""
        return headline_figures(self.headline)[1]

    @property
    def best_on_validation(self) -> str:
        """Name of the figure of the best round on the validation split."""
        return headline_figures(self.headline)[2]

    @property
    def judged(self) -> tuple[str, str]:
        """Names of the figures of which differences from a baseline are judged."""
        return self.best, self.final

    @property
    def column(self) -> str:
        """The column of `rounds.parquet` with its values on the test split."""
        return score_column(self.headline)

    @property
    def unit(self) -> str:
        """The unit in which it is shown: "%", or "" for values as they are."""
        return PERCENT.unit if self.headline.percent else ""

    @property
    def scale(self) -> float:
        """What is shown is the value times this."""
        return PERCENT.scale if self.headline.percent else 1.0

    @property
    def axis(self) -> str:
        """The label of a chart's axis: "test accuracy (%)"."""
        return self.with_unit(f"test {self.words}")

    def with_unit(self, text: str) -> str:
        """A heading with the unit behind it, where there is one."""
        return f"{text} ({self.unit})" if self.unit else text

    def number(self, values: Iterable[float]) -> Number:
        """How a column of such values is shown."""
        return PERCENT if self.headline.percent else Number.fitting(values)

    def change(self, differences: Iterable[float]) -> Number:
        """How a column of differences of such values is shown."""
        return POINTS if self.headline.percent else replace(Number.fitting(differences), is_change=True)

    def about(self, value: float) -> str:
        """A single value in few digits: "50.0 %", "12.5"."""
        return ABOUT.show(value) if self.headline.percent else Number.fitting([value]).show(value)

    def goal(self, target: float) -> str:
        """What reaching a target means: "50.0 % accuracy", "perplexity 12.5 or less"."""
        if self.headline.percent:
            return f"{self.about(target)} {self.words}"
        return f"{self.words} {self.about(target)} or {'more' if self.headline.higher_is_better else 'less'}"

    def worst(self, values: Sequence[float]) -> float:
        """The worst of some values; NaN where none is finite."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return math.nan
        return min(finite) if self.headline.higher_is_better else max(finite)


def tenth_worse(shown: ShownHeadline, value: float) -> float:
    """A target a tenth worse than a value, which is at least 0.

    Returns:
        90 % of the value, rounded down to 0.1 %; of a metric of which less is better 110 %, rounded up to three digits.
    """
    if shown.headline.higher_is_better:
        return math.floor(900 * value) / 1000
    if not value > 0:
        return value
    digits = 2 - math.floor(math.log10(value))
    return round(math.ceil(round(1.1 * value * 10.0**digits, 6)) / 10.0**digits, max(digits, 0))


def origin(shown: ShownHeadline) -> str:
    """A sentence that says how a target was chosen that the user did not give."""
    if shown.headline.higher_is_better:
        return f"The target is 90 % of the worst method's best {shown.words}."
    return f"The target is 1.1 times the worst method's best {shown.words}."
