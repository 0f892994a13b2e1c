"""What a cell of a suite's table reads off a recorded run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from fedbench.components.base import Section
from fedbench.components.suggestions import did_you_mean
from fedbench.tables.numbers import Number

Rows = dict[str, list[Any]]
"""The columns of `rounds.parquet`, up to the round that is read."""


def _cumulative(*columns: str) -> Callable[[Rows], list[float | None]]:
    def read(rows: Rows) -> list[float | None]:
        return list(accumulate(float(sum(values)) for values in zip(*(rows[name] for name in columns), strict=True)))

    return read


def _as_recorded(column: str) -> Callable[[Rows], list[float | None]]:
    return lambda rows: list(rows[column])


def _best(rows: Rows) -> list[float | None]:
    best: float | None = None
    course: list[float | None] = []
    for score in rows["test_accuracy"]:
        best = score if best is None or (score is not None and score > best) else best
        course.append(best)
    return course


def _last_seen(column: str) -> Callable[[Rows], list[float | None]]:
    def read(rows: Rows) -> list[float | None]:
        course: list[float | None] = []
        for value in rows[column]:
            course.append(value if value is not None or not course else course[-1])
        return course

    return read


@dataclass(frozen=True)
class Quantity:
    """One that a run's rounds tell.

    Attributes:
        meaning: for the table's notes.
        unit: in which it is shown.
        scale: from the recorded to the shown unit.
        course: its value after each round, in the recorded unit.
        digits: decimals; None: as many as the smallest value of a column needs.
        grows: so that it can be asked for when an accuracy is first reached.
    """

    meaning: str
    unit: str
    scale: float
    course: Callable[[Rows], list[float | None]]
    digits: int | None = None
    grows: bool = True


QUANTITIES: dict[str, Quantity] = {
    "best_accuracy": Quantity("best test accuracy so far", "%", 100, _best, 2, grows=False),
    "final_accuracy": Quantity("last test accuracy", "%", 100, _last_seen("test_accuracy"), 2, grows=False),
    "train_loss": Quantity("training loss of the last round", "", 1, _last_seen("train_loss"), grows=False),
    "rounds": Quantity("rounds", "", 1, lambda rows: [number + 1 for number in rows["round"]], 0),
    "uplink_mb": Quantity("sent up by all clients", "MB", 1e-6, _cumulative("uplink_bytes")),
    "downlink_mb": Quantity("sent down to all clients", "MB", 1e-6, _cumulative("downlink_bytes")),
    "sent_mb": Quantity("sent up and down", "MB", 1e-6, _cumulative("uplink_bytes", "downlink_bytes")),
    "gflop": Quantity("work of all clients", "GFLOP", 1e-9, _cumulative("client_flops")),
    "tflop": Quantity("work of all clients", "TFLOP", 1e-12, _cumulative("client_flops")),
    "paper_comm_gb": Quantity("Comm., as the FedPart paper counts", "GB", 1, _as_recorded("paper_comm_gb"), 2),
    "paper_comp_tflop": Quantity("Comp., as the FedPart paper counts", "TFLOP", 1, _as_recorded("paper_comp_tflop"), 2),
    "virtual_seconds": Quantity("time on the run's clock", "s", 1, _as_recorded("virtual_seconds")),
    "wall_seconds": Quantity("time of the rounds", "s", 1, _cumulative("wall_seconds"), 1),
    "epochs": Quantity("epochs", "", 1, _as_recorded("epochs"), 1),
}
"""What a measure may ask for."""


class Measure(Section):
    """What a column shows.

    Attributes:
        value: a key of `QUANTITIES`.
        target: test accuracy in percent; the value is then that at the first evaluation which reaches it.
        digits: decimals shown.
    """

    value: str
    target: float | None = Field(default=None, gt=0, le=100)
    digits: int | None = Field(default=None, ge=0, le=6)

    @field_validator("value")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in QUANTITIES:
            raise ValueError(f"no such quantity{did_you_mean(value, QUANTITIES)}")
        return value

    @model_validator(mode="after")
    def _target_makes_sense(self) -> Self:
        if self.target is not None and not self.quantity.grows:
            allowed = ", ".join(name for name, quantity in QUANTITIES.items() if quantity.grows)
            raise ValueError(f"target={self.target:g}: has no effect on value={self.value}; allowed with: {allowed}")
        return self

    @property
    def quantity(self) -> Quantity:
        """What is read."""
        return QUANTITIES[self.value]

    def number(self, values: Sequence[float]) -> Number:
        """How the values of a column are shown; they are in the shown unit already."""
        digits = self.quantity.digits if self.digits is None else self.digits
        return Number.fitting(values, most=4) if digits is None else Number(digits)

    def heading(self, path: str) -> str:
        """Of its column: name, target and unit."""
        target = "" if self.target is None else f" to {self.target:g} %"
        unit = f" ({self.quantity.unit})" if self.quantity.unit else ""
        return f"{path}{target}{unit}"


@dataclass(frozen=True)
class Reading:
    """What one run says for one cell.

    Attributes:
        value: in the shown unit; None: there is none.
        absence: why, in a few words.
    """

    value: float | None
    absence: str = ""


def read(measure: Measure, history: pa.Table, through: int | None) -> Reading:
    """A measure of a run.

    Args:
        history: its rounds, with `ROUND_SCHEMA`.
        through: how many rounds are looked at; None: all; 0: none, which no quantity has a value for.
    """
    count = history.num_rows if through is None else through
    if count == 0:
        return Reading(None, "no such rounds")
    if count > history.num_rows:
        return Reading(None, f"the run has {history.num_rows} of {count} rounds")
    rows: Rows = {name: history.column(name).to_pylist()[:count] for name in history.column_names}
    course = measure.quantity.course(rows)
    if measure.target is None:
        value = course[-1]
    else:
        goal = measure.target / 100
        scores = rows["test_accuracy"]
        reached = next((place for place, score in enumerate(scores) if score is not None and score >= goal), None)
        if reached is None:
            return Reading(None, "not reached")
        value = course[reached]
    return Reading(None, "not recorded") if value is None else Reading(value * measure.quantity.scale)
