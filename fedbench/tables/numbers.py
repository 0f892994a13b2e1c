"""The unit, scale and decimals with which a quantity is shown."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

SIGNIFICANT = 3
"""Digits that the smallest value of a column keeps, where `Number.fitting` chooses."""


@dataclass(frozen=True)
class Number:
    """The way in which the values of one quantity are shown.

    Attributes:
        digits: decimals.
        scale: what is shown is the value times this: 100 for a fraction as percent, 1e-6 for bytes as MB.
        unit: stands behind the number; "" for none.
        is_change: a positive value has a plus sign before it.

    >>> Number(1, 100, "%").show(0.98765)
    '98.8 %'
    """

    digits: int = 2
    scale: float = 1.0
    unit: str = ""
    is_change: bool = False

    @classmethod
    def fitting(cls, values: Iterable[float], scale: float = 1.0, unit: str = "", most: int = 6) -> Self:
        """A number with the decimals that the smallest of `values` but zero needs to show three significant digits.

        >>> Number.fitting([1234.5, 0.0321]).digits, Number.fitting([1234.5]).digits
        (4, 0)
        """
        sizes = [abs(value * scale) for value in values if value and math.isfinite(value)]
        if not sizes:
            return cls(2, scale, unit)
        return cls(min(most, max(0, SIGNIFICANT - 1 - math.floor(math.log10(min(sizes))))), scale, unit)

    def bare(self, value: float) -> str:
        """The number alone."""
        return self.signed(value) if self.is_change else self.unsigned(value)

    def unsigned(self, value: float) -> str:
        """The number alone, with a sign only if it is negative."""
        return f"{value * self.scale:,.{self.digits}f}"

    def signed(self, value: float) -> str:
        """The number alone, with its sign; a zero has none."""
        text = f"{value * self.scale:+,.{self.digits}f}"
        return text if text.strip("+-0,.") else text.lstrip("+-")

    def show(self, value: float) -> str:
        """The number with its unit."""
        return f"{self.bare(value)} {self.unit}".rstrip()


PERCENT = Number(2, 100, "%")
"""Shows fractions, such as accuracies, as percentages."""
