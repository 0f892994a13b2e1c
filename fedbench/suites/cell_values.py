"""What a cell of a suite's table reads off a recorded run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from fedbench.components.base import Section
from fedbench.components.suggestions import did_you_mean
from fedbench.records.headline import ACCURACY, first_round_reaching, headline_of
from fedbench.records.metrics import METRICS, NO_CLIENT_SCORES, NO_METRIC, Metric
from fedbench.records.own_metrics import OWN, own_metric
from fedbench.tables.numbers import Number
from fedbench.tasks.kinds import TASKS, WORDS, Headline


@dataclass(frozen=True)
class Quantity:
    """A metric in the unit in which a paper's table shows it.

    Attributes:
        metric: what is read.
        unit: in which it is shown.
        scale: from the recorded to the shown unit.
        digits: decimals; None: as many as the smallest value of a column needs.
    """

    metric: Metric
    unit: str
    scale: float
    digits: int | None = None


def _quantity(metric: Metric) -> Quantity:
    """A metric that a suite shows as it is recorded, fractions in percent."""
    return Quantity(metric, "%", 100, 2) if metric.unit == "fraction" else Quantity(metric, "", 1)


QUANTITIES: dict[str, Quantity] = {
    "best_accuracy": Quantity(METRICS["best_accuracy"], "%", 100, 2),
    "final_accuracy": Quantity(METRICS["final_accuracy"], "%", 100, 2),
    "best_validation_accuracy": Quantity(METRICS["best_validation_accuracy"], "%", 100, 2),
    "final_validation_accuracy": Quantity(METRICS["final_validation_accuracy"], "%", 100, 2),
    "train_loss": Quantity(METRICS["train_loss"], "", 1),
    "rounds": Quantity(METRICS["rounds"], "", 1, 0),
    "uplink_mb": Quantity(METRICS["uplink_bytes"], "MB", 1e-6),
    "downlink_mb": Quantity(METRICS["downlink_bytes"], "MB", 1e-6),
    "sent_mb": Quantity(METRICS["total_bytes"], "MB", 1e-6),
    "gflop": Quantity(METRICS["client_flops"], "GFLOP", 1e-9),
    "tflop": Quantity(METRICS["client_flops"], "TFLOP", 1e-12),
    "paper_comm_gb": Quantity(METRICS["paper_comm_gb"], "GB", 1, 2),
    "paper_comp_tflop": Quantity(METRICS["paper_comp_tflop"], "TFLOP", 1, 2),
    "virtual_seconds": Quantity(METRICS["virtual_seconds"], "s", 1),
    "joules": Quantity(METRICS["joules"], "J", 1),
    "wall_seconds": Quantity(METRICS["wall_seconds"], "s", 1, 1),
    "epochs": Quantity(METRICS["epochs"], "", 1, 1),
    "step_norm": Quantity(METRICS["step_norm"], "", 1),
    "step_jump_full": Quantity(METRICS["step_norm_jump_full"], "", 1, 2),
    "step_jump_partial": Quantity(METRICS["step_norm_jump_partial"], "", 1, 2),
    "gradient_jump_full": Quantity(METRICS["gradient_norm_jump_full"], "", 1, 2),
    "gradient_jump_partial": Quantity(METRICS["gradient_norm_jump_partial"], "", 1, 2),
    "update_cosine": Quantity(METRICS["update_cosine"], "", 1, 2),
    "cancelled_share": Quantity(METRICS["cancelled_share"], "%", 100, 1),
    "cka": Quantity(METRICS["cka"], "", 1, 3),
    "barrier": Quantity(METRICS["barrier"], "", 1, 3),
    **{
        name: Quantity(metric, "%", 100, 2) if metric.unit == "fraction" else Quantity(metric, "", 1, 3)
        for name, metric in METRICS.items()
        if metric.undefined in (NO_CLIENT_SCORES, NO_METRIC)
    },
}
QUANTITIES |= {
    name: _quantity(metric) for name, metric in METRICS.items() if metric.is_score and name not in QUANTITIES
}
"""What a measure may ask for, by the names that suite files use."""


HEADLINES = {kind.headline.name: kind.headline for kind in TASKS.values()}
"""The metrics that a target may be of, by name."""


class Measure(Section):
    """What a column shows.

    Attributes:
        value: The figure: best_accuracy, final_accuracy, best_mae, best_perplexity, ... of the test split, train_loss,
            rounds, sent_mb, uplink_mb, downlink_mb, gflop, tflop, virtual_seconds, joules, wall_seconds, ...; a wrong
            name is refused with the nearest one. own:NAME: the last value on the test split of a metric of one's own
            that `evaluation.metrics` names.
        target: A value on the test split of the metric by which the task is judged, an accuracy in percent; shown is
            then the figure at the first evaluation which reaches the target.
        metric: What the target is of: accuracy, macro_f1 and mean_iou in percent, perplexity and mae as they are; none:
            what the task of the run is judged by.
        better: Which values of own:NAME are better, so that rows are compared and ranked by it; none: neither.
        digits: Number of decimals that are shown. None: as many as the smallest value of a column needs.
    """

    value: str
    target: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    metric: str | None = None
    better: Literal["higher", "lower"] | None = None
    digits: int | None = Field(default=None, ge=0, le=6)

    @field_validator("value")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in QUANTITIES and not (value.startswith(OWN) and value.removeprefix(OWN).isidentifier()):
            raise ValueError(f"no such quantity{did_you_mean(value, QUANTITIES)}")
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in HEADLINES:
            raise ValueError(f"no task is judged by it{did_you_mean(metric, HEADLINES)}")
        return metric

    @model_validator(mode="after")
    def _target_makes_sense(self) -> Self:
        if self.metric is not None and self.target is None:
            raise ValueError(f"metric={self.metric}: has no effect without a target")
        if self.better is not None and not self.value.startswith(OWN):
            raise ValueError(f"better={self.better}: has no effect on value={self.value}, whose direction is known")
        if self.target is not None and self.target > 100 and self.in_percent(None):
            hint = "" if self.metric else "; if the task is judged by another metric, name it: metric=perplexity"
            raise ValueError(f"target={self.target:g}: must be at most 100 %{hint}")
        if self.target is not None and not self.quantity.metric.grows:
            allowed = ", ".join(name for name, quantity in QUANTITIES.items() if quantity.metric.grows)
            raise ValueError(f"target={self.target:g}: has no effect on value={self.value}; allowed with: {allowed}")
        return self

    @property
    def quantity(self) -> Quantity:
        """The quantity that is read."""
        if self.value in QUANTITIES:
            return QUANTITIES[self.value]
        return Quantity(own_metric(self.value, self.better), "", 1)

    @property
    def words(self) -> str:
        """What is shown, in words: "best accuracy", "best MAE"."""
        return _in_words(self.value)

    def in_percent(self, headline: Headline | None) -> bool:
        """Whether the target is in percent.

        Args:
            headline: what the task of the run is judged by; None: not known yet, and taken for accuracy.
        """
        return (HEADLINES[self.metric] if self.metric else headline or ACCURACY).percent

    def number(self, values: Sequence[float]) -> Number:
        """The decimals with which a column shows these values, which are in the shown unit already."""
        digits = self.quantity.digits if self.digits is None else self.digits
        return Number.fitting(values, most=4) if digits is None else Number(digits)

    def heading(self, path: str, headline: Headline | None = None) -> str:
        """The heading of a column, from its name: with target and unit.

        Args:
            path: the name.
            headline: what the task of its runs is judged by; None: not known yet.
        """
        target = ""
        if self.target is not None:
            metric = HEADLINES[self.metric] if self.metric else headline or ACCURACY
            share = f"{self.target:g} %" if metric == ACCURACY else f"{self.target:g} % {metric.words}"
            target = f" to {share if metric.percent else f'{metric.words} {self.target:g}'}"
        unit = f" ({self.quantity.unit})" if self.quantity.unit else ""
        return f"{path}{target}{unit}"


def _in_words(value: str) -> str:
    """A measure's name for readers.

    >>> _in_words("best_accuracy"), _in_words("final_mean_iou"), _in_words("own:Brier")
    ('best accuracy', 'final mean IoU', 'Brier')
    """
    for name in ("mae", "r2", "mean_iou"):
        if value.endswith(f"_{name}"):
            return f"{value.removesuffix(name)}".replace("_", " ") + WORDS[name]
    return value.removeprefix(OWN).replace("_", " ")


class Absence(Enum):
    """Why a cell has no value for a seed; the text is for readers."""

    NOT_RUN = "not run yet"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NO_SUCH_ROUNDS = "no such rounds"
    TOO_SHORT = "the run ended before the round that is read"
    NOT_REACHED = "not reached"
    NOT_RECORDED = "not recorded"
    NOT_DEFINED = "not defined for this run"


@dataclass(frozen=True)
class Reading:
    """What one run says for one cell.

    Attributes:
        value: in the shown unit; None: there is none.
        absence: why there is none; None where there is a value.
        words: the absence in a few words, for readers; "" where there is a value.
    """

    value: float | None
    absence: Absence | None = None
    words: str = ""

    @classmethod
    def absent(cls, absence: Absence, words: str = "") -> Self:
        """No value; `words` where there is more to say than what the absence itself says."""
        return cls(None, absence, words or absence.value)


def read(measure: Measure, rounds: pa.Table, through: int | None) -> Reading:
    """The value of a measure in one run.

    Args:
        measure: what is read.
        rounds: of the run, with `ROUND_SCHEMA`.
        through: how many rounds are looked at; None: all; 0: none, which no quantity has a value for.
    """
    count = rounds.num_rows if through is None else through
    if count == 0:
        return Reading.absent(Absence.NO_SUCH_ROUNDS)
    if count > rounds.num_rows:
        return Reading.absent(Absence.TOO_SHORT, f"the run has {rounds.num_rows} of {count} rounds")
    seen = rounds.slice(0, count)
    index: int | None = count - 1
    if measure.target is not None:
        headline = headline_of(rounds)
        if measure.metric not in (None, headline.name):
            words = f"the target is of {HEADLINES[str(measure.metric)].words}, the run is judged by {headline.words}"
            return Reading.absent(Absence.NOT_DEFINED, words)
        index = first_round_reaching(seen, measure.target / 100 if headline.percent else measure.target)
    if index is None:
        return Reading.absent(Absence.NOT_REACHED)
    metric = measure.quantity.metric
    value = metric.by_round(seen)[index]
    if value is not None:
        return Reading(value * measure.quantity.scale)
    judged = headline_of(rounds)
    score = re.sub(r"^(best|final)_(validation_)?", "", measure.value)
    if score in HEADLINES and score != judged.name:
        words = f"the figure is of {HEADLINES[score].words}, the run is judged by {judged.words}"
        return Reading.absent(Absence.NOT_DEFINED, words)
    if metric.undefined:
        return Reading.absent(Absence.NOT_DEFINED, metric.undefined)
    return Reading.absent(Absence.NOT_RECORDED)
