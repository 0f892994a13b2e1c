"""Round numbers for the axes of charts."""

import math
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

SAME = 1e-9
"""Difference of two values, as a share of them, below which an axis has no ticks between them."""


@dataclass(frozen=True)
class Scale:
    """A linear axis from data to places on a page.

    Attributes:
        low, high: the data at its ends.
        start, end: the places of its ends.
        step: between two ticks.
    """

    low: float
    high: float
    start: float
    end: float
    step: float

    def place(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """The multiples of the step on the axis."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [index * self.step for index in range(first, last + 1)]

    def label(self, tick: float) -> str:
        """A tick's number, with as many decimals as the step needs."""
        digits = next((count for count in range(9) if math.isclose(round(self.step, count), self.step)), 9)
        return f"{tick:,.{digits}f}" if round(tick, digits) else "0"


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 2.5, 5, 10, ... (times a power of ten) of which at most `most` fit into `span`.

    >>> nice_step(0.83, 5), nice_step(120.0, 6)
    (0.2, 20.0)
    """
    if not span > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(step * power for step in STEPS if span / (step * power) <= most * (1 + 1e-9))


def from_zero(high: float, start: float, end: float, most: int, whole: bool = False) -> Scale:
    """An axis from zero to a little beyond `high`; with ticks on whole numbers only, if asked for."""
    high = high if high > 0 else 1.0
    step = nice_step(high, most)
    return Scale(0.0, high * 1.02, start, end, max(1.0, math.ceil(step)) if whole else step)


def around(low: float, high: float, start: float, end: float, most: int) -> Scale:
    """An axis from a tick at or below `low` to one at or above `high`; around values that are as good as equal."""
    largest = max(abs(low), abs(high))
    if not high - low > SAME * largest:
        margin = max(0.01, 1e-3 * largest)
        low, high = low - margin, high + margin
    step = nice_step(high - low, most)
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end, step)
