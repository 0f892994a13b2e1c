"""Published statements beside what an analysis has measured, and whether that agrees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fedbench.records.recorded_analysis import ShownTable
from fedbench.suites.analysis_part import Statement
from fedbench.tables.comparisons import (
    NOT_TOLD_APART,
    TOO_FEW_SEEDS,
    Judgement,
    explained,
    judged_together,
    shown_p,
)
from fedbench.tables.seed_statistics import Spread

AGREES, DISAGREES, NOT_MEASURED = "agrees", "does not agree", "not measured"

Step = tuple[int, int]
"""(place of a statement, place of one of its figures that has another after it)."""


@dataclass(frozen=True)
class Judged:
    """A statement, and what was measured of it with each seed.

    Attributes:
        statement: as it was published.
        measured: {seed: the figures in the order of the statement}; None in place of a figure that the analysis of
            this seed does not have.
        steps: what is concluded from the differences between each figure and the one before it, over the seeds.
    """

    statement: Statement
    measured: Mapping[int, tuple[float | None, ...]]
    steps: tuple[Judgement, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether every seed has every figure."""
        return all(value is not None for values in self.measured.values() for value in values)

    def agrees(self, seed: int) -> bool | None:
        """Whether each figure is larger than the one before it; None where one is missing."""
        values = [value for value in self.measured[seed] if value is not None]
        if len(values) < len(self.measured[seed]):
            return None
        return all(before < after for before, after in pairwise(values))

    @property
    def verdict(self) -> str:
        """Whether what was measured agrees; with too few seeds for that, in how many seeds the order is the stated."""
        if not self.is_measured:
            return NOT_MEASURED
        told_apart = [step.is_told_apart for step in self.steps]
        if None in told_apart or not told_apart:
            return f"{self._in_order}; {TOO_FEW_SEEDS}"
        grows = [difference.mean > 0 for difference in _differences(self.measured)]
        if any(apart and not up for apart, up in zip(told_apart, grows, strict=True)):
            return f"{DISAGREES} ({self._p_values})"
        return f"{AGREES if all(told_apart) else NOT_TOLD_APART} ({self._p_values}; {self._in_order})"

    @property
    def _in_order(self) -> str:
        orders = [self.agrees(seed) for seed in self.measured]
        return f"in this order with {sum(map(bool, orders))} of {len(orders)} seed{'s' if len(orders) > 1 else ''}"

    @property
    def _p_values(self) -> str:
        """The largest p-values among the steps: all of them are at most that."""
        largest = max(self.steps, key=lambda step: step.adjusted or 0.0)
        assert largest.p_value is not None
        assert largest.adjusted is not None
        return f"p {shown_p(largest.p_value)}, adjusted {shown_p(largest.adjusted)}"

    @property
    def means(self) -> tuple[float | None, ...]:
        """The mean of each figure over the seeds; None where a seed does not have it."""
        columns = zip(*self.measured.values(), strict=True)
        return tuple(_mean(column) for column in columns)

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "says": self.statement.says,
            "source": self.statement.source,
            "ascending": list(self.statement.ascending),
            "measured": {str(seed): list(values) for seed, values in self.measured.items()},
            "agrees": {str(seed): self.agrees(seed) for seed in self.measured},
            "verdict": self.verdict,
        }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _differences(measured: Mapping[int, tuple[float | None, ...]]) -> list[Spread]:
    """Over the seeds, each figure minus the one before it; every figure is there."""
    columns = [[value for value in column if value is not None] for column in zip(*measured.values(), strict=True)]
    return [Spread.of(after - before for before, after in zip(*pair, strict=True)) for pair in pairwise(columns)]


def judged(statements: Sequence[Statement], metrics: Mapping[int, Mapping[str, float]]) -> list[Judged]:
    """Statements beside the figures of an analysis.

    Args:
        statements: as they were published.
        metrics: {seed: {name of a figure: value}}, at least one seed.
    """
    return judged_as_one_family(
        Judged(
            statement,
            {seed: tuple(of_seed.get(name) for name in statement.ascending) for seed, of_seed in metrics.items()},
        )
        for statement in statements
    )


def judged_as_one_family(statements: Iterable[Judged]) -> list[Judged]:
    """The statements with conclusions that are corrected for all comparisons of all of them."""
    judgements = list(statements)
    p_values: dict[Step, float | None] = {
        (place, number): difference.p_value(0.0)
        for place, judgement in enumerate(judgements)
        if judgement.is_measured
        for number, difference in enumerate(_differences(judgement.measured))
    }
    together = judged_together(p_values)
    return [
        replace(judgement, steps=tuple(step for (of, _), step in together.items() if of == place))
        for place, judgement in enumerate(judgements)
    ]


def statements_table(title: str, statements: Sequence[Judged]) -> ShownTable:
    """A table of statements, what was measured, and whether it agrees.

    Args:
        title: of the table.
        statements: at least one.
    """
    rows = tuple(
        (f"{judgement.statement.says} ({judgement.statement.source})", (_in_words(judgement), judgement.verdict))
        for judgement in statements
    )
    seeds = max(len(judgement.measured) for judgement in statements)
    notes = [
        "A statement agrees where each figure is told apart from the one before it and larger; it does not agree where "
        "one is told apart and smaller."
    ]
    if seeds > 1:
        notes.append(f"Figures are means over {seeds} seeds.")
    size = max((step.family for judgement in statements for step in judgement.steps), default=0)
    notes.append(explained("paired t test over seeds", "each figure of a statement with the one before it", size))
    return ShownTable(title, "published", ("measured", "verdict"), rows, tuple(notes))


def _in_words(judgement: Judged) -> str:
    """The figures in the order of the statement: "psnr/stem 12.1, psnr/all 25.3"."""
    pairs = zip(judgement.statement.ascending, judgement.means, strict=True)
    return ", ".join(f"{name} {'missing' if value is None else f'{value:.4g}'}" for name, value in pairs)
