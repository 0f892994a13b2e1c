"""Published statements beside what an analysis has measured, and whether that agrees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedbench.records.recorded_analysis import ShownTable
from fedbench.suites.analysis_part import Statement

AGREES, DISAGREES, NOT_MEASURED = "agrees", "does not agree", "not measured"


@dataclass(frozen=True)
class Judged:
    """A statement, and what was measured of it with each seed.

    Attributes:
        statement: as it was published.
        measured: {seed: the figures in the order of the statement}; None in place of a figure that the analysis of
            this seed does not have.
    """

    statement: Statement
    measured: Mapping[int, tuple[float | None, ...]]

    def agrees(self, seed: int) -> bool | None:
        """Whether each figure is larger than the one before it; None where one is missing."""
        values = [value for value in self.measured[seed] if value is not None]
        if len(values) < len(self.measured[seed]):
            return None
        return all(before < after for before, after in pairwise(values))

    @property
    def verdict(self) -> str:
        """Whether what was measured agrees, with how many of the seeds where they differ."""
        verdicts = [self.agrees(seed) for seed in self.measured]
        known = [verdict for verdict in verdicts if verdict is not None]
        if not known or len(known) < len(verdicts):
            return NOT_MEASURED
        if len(known) > 1 and len(set(known)) > 1:
            return f"{AGREES} with {sum(known)} of {len(known)} seeds"
        return AGREES if known[0] else DISAGREES

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


def judged(statements: Sequence[Statement], metrics: Mapping[int, Mapping[str, float]]) -> list[Judged]:
    """Statements beside the figures of an analysis.

    Args:
        statements: as they were published.
        metrics: {seed: {name of a figure: value}}, at least one seed.
    """
    return [
        Judged(
            statement,
            {seed: tuple(of_seed.get(name) for name in statement.ascending) for seed, of_seed in metrics.items()},
        )
        for statement in statements
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
    notes = ["A statement agrees where each figure is larger than the one before it."]
    if seeds > 1:
        notes.append(f"Figures are means over {seeds} seeds; each seed is judged by itself.")
    return ShownTable(title, "published", ("measured", "verdict"), rows, tuple(notes))


def _in_words(judgement: Judged) -> str:
    """The figures in the order of the statement: "psnr/stem 12.1, psnr/all 25.3"."""
    pairs = zip(judgement.statement.ascending, judgement.means, strict=True)
    return ", ".join(f"{name} {'missing' if value is None else f'{value:.4g}'}" for name, value in pairs)
