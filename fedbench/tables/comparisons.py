"""What is concluded from seeds: p-values, Holm's correction for many comparisons, and the words of a verdict."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fedbench.tables.seed_statistics import FEWEST_SEEDS, LEVEL

Key = TypeVar("Key", bound=Hashable)

SIGNIFICANCE = round(1 - LEVEL, 12)
"""The chance of at least one false "told apart" among all comparisons of a family, at most."""

TOLD_APART, NOT_TOLD_APART, TOO_FEW_SEEDS = "told apart", "not told apart", "too few seeds"

SMALLEST_SHOWN = 0.001
"""A smaller p-value is shown as smaller than this."""


@dataclass(frozen=True)
class Judgement:
    """What is concluded from one comparison.

    Attributes:
        p_value: of the test by itself; None where there are too few seeds.
        adjusted: the p-value corrected for all comparisons of the family; None where there are too few seeds.
        family: the number of comparisons in the family.
    """

    p_value: float | None
    adjusted: float | None
    family: int

    @property
    def is_told_apart(self) -> bool | None:
        """Whether the adjusted p-value is at most `SIGNIFICANCE`; None where nothing is concluded."""
        return None if self.adjusted is None else self.adjusted <= SIGNIFICANCE

    @property
    def verdict(self) -> str:
        """The conclusion in words."""
        if self.is_told_apart is None:
            return TOO_FEW_SEEDS
        return TOLD_APART if self.is_told_apart else NOT_TOLD_APART

    @property
    def words(self) -> str:
        """The conclusion with its p-values: "told apart (p 0.004, adjusted 0.012)"."""
        if self.p_value is None or self.adjusted is None:
            return self.verdict
        adjusted = f", adjusted {shown_p(self.adjusted)}" if self.family > 1 else ""
        return f"{self.verdict} (p {shown_p(self.p_value)}{adjusted})"

    def to_mapping(self) -> dict[str, float | bool | None]:
        """Plain values for JSON."""
        return {"p_value": self.p_value, "p_adjusted": self.adjusted, "told_apart": self.is_told_apart}


def judged_together(p_values: Mapping[Key, float | None]) -> dict[Key, Judgement]:
    """The conclusions of all comparisons of a family, by Holm's correction.

    Args:
        p_values: {comparison: its p-value}; None for one with too few seeds, which is not counted in the family.
    """
    known = {key: p_value for key, p_value in p_values.items() if p_value is not None}
    adjusted = dict(zip(known, holm(known.values()), strict=True))
    return {key: Judgement(p_value, adjusted.get(key), len(known)) for key, p_value in p_values.items()}


def holm(p_values: Iterable[float]) -> list[float]:
    """p-values adjusted by Holm's step-down procedure, in the order given.

    Concluding where an adjusted value is at most alpha concludes falsely, anywhere in the family, with a probability of
    at most alpha, however the comparisons depend on each other. With p_(1) <= ... <= p_(m), the adjusted value of
    p_(i) is the largest of min(1, (m - j + 1) p_(j)) over j <= i (Holm, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6, 1979).

    >>> [round(value, 12) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = list(p_values)
    m, largest = len(p), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(sorted(range(m), key=p.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def shown_p(p_value: float) -> str:
    """A p-value with three decimals.

    >>> shown_p(0.0123), shown_p(0.0002)
    ('0.012', '<0.001')
    """
    return f"<{SMALLEST_SHOWN:g}" if p_value < SMALLEST_SHOWN else f"{p_value:.3f}"


def explained(test: str, family: str, size: int) -> str:
    """What p-values and verdicts of a table mean, for readers who are no statisticians.

    Args:
        test: the name of the test.
        family: what is compared: "best and final accuracy of 4 methods with the baseline".
        size: the number of comparisons that have a p-value.
    """
    few = f"{TOO_FEW_SEEDS}: fewer than {FEWEST_SEEDS}, or all with one value, from which nothing is concluded."
    if not size:
        return few[0].upper() + few[1:]
    by = "p"
    sentences = [
        f"p ({test}) is how often chance alone would bring a difference as large as this or larger between equals."
    ]
    if size > 1:
        by = "the adjusted p"
        sentences.append(
            f"Among many comparisons some look real by chance; p is therefore adjusted by Holm's method for all {size} "
            f"comparisons of this table ({family}), so that not even one of them is taken for real by chance more "
            f"often than in {SIGNIFICANCE:.0%} of such tables.".replace("%", " %")
        )
    sentences.append(
        f"{TOLD_APART[0].upper()}{TOLD_APART[1:]}: {by} is at most {SIGNIFICANCE:g}. {NOT_TOLD_APART[0].upper()}"
        f"{NOT_TOLD_APART[1:]}: these seeds do not show a difference, which does not mean that there is none. "
        f"{few[0].upper()}{few[1:]}"
    )
    return " ".join(sentences)
