"""Tables of figures over seeds: what is in a cell, whatever it is written as.

A table knows nothing of runs. `fedbench.tables.render` writes it as Markdown, LaTeX, HTML and CSV.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from fedbench.tables.comparisons import Judgement, explained, judged_together
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import INTERVAL, Spread

AS_IT_IS = Number()


@dataclass(frozen=True)
class Cell:
    """One cell: text, or a figure over seeds; nothing at all is shown as missing.

    Attributes:
        text: shown where there is no spread: "failed", "not reached", a name.
        spread: the measured values, in their own unit.
        published: the figure to show beside, in the same unit as the values.
        published_std: the deviation printed with it; shown, and not counted in what is concluded.
        number: the way in which values and published figure are shown.
        note: why it is missing, or what to know of it; becomes a footnote.
    """

    text: str = ""
    spread: Spread | None = None
    published: float | None = None
    published_std: float | None = None
    number: Number = AS_IT_IS
    note: str = ""

    @property
    def measured(self) -> Spread | None:
        """The values, if there are any."""
        return self.spread if self.spread is not None and self.spread.n else None

    @property
    def shown(self) -> str:
        """The text of a cell without values."""
        return self.text or "missing"

    @property
    def difference(self) -> float | None:
        """Measured mean minus published figure, in the values' unit."""
        if self.measured is None or self.published is None:
            return None
        return self.measured.mean - self.published

    @property
    def published_words(self) -> str:
        """The published figure with its deviation; "" where there is none."""
        if self.published is None:
            return ""
        deviation = "" if self.published_std is None else f" ± {self.number.bare(self.published_std)}"
        return f"{self.number.bare(self.published)}{deviation}"

    @property
    def difference_words(self) -> str:
        """The difference with its interval: "-4.00 (-6.48 to -1.52)"; "" where there is none."""
        if self.difference is None or self.measured is None or self.published is None:
            return ""
        if self.measured.interval is None:
            return self.number.signed(self.difference)
        low, high = (self.number.signed(end - self.published) for end in self.measured.interval)
        return f"{self.number.signed(self.difference)} ({low} to {high})"

    @property
    def p_value(self) -> float | None:
        """The p-value of the test that the published figure is the true mean; None without it or with too few seeds."""
        return None if self.measured is None or self.published is None else self.measured.p_value(self.published)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: one line.
        corner: the heading of the row labels.
        columns: the headings of the columns, units included.
        rows: (label, one cell a column) each.
        notes: lines below the table.
        label: identifies the table in LaTeX and links; "": made of the title.
        banner: what every reader must know first, such as that a budget was scaled down; stands in every output.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    label: str = ""
    banner: str = ""

    def __post_init__(self) -> None:
        for label, cells in self.rows:
            if len(cells) != len(self.columns):
                raise ValueError(f"row {label!r} has {len(cells)} cells for {len(self.columns)} columns")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        return tuple(cell for _, row in self.rows for cell in row)

    @cached_property
    def seeds(self) -> int:
        """The number of values that most cells have (the larger of two that are as frequent); 0 without any."""
        counts = Counter(cell.measured.n for cell in self.cells if cell.measured)
        return max(counts, key=lambda n: (counts[n], n), default=0)

    @cached_property
    def footnotes(self) -> tuple[str, ...]:
        """The notes of the cells, each once, in the order of their numbers from 1."""
        return tuple(dict.fromkeys(cell.note for cell in self.cells if cell.note))

    @cached_property
    def judgements(self) -> dict[Cell, Judgement]:
        """What is concluded from each cell that has values, all of them finite, and a published figure."""
        places = {
            place: cell
            for place, cell in enumerate(self.cells)
            if cell.difference is not None and math.isfinite(cell.difference)
        }
        judgements = judged_together({place: cell.p_value for place, cell in places.items()})
        return {cell: judgements[place] for place, cell in places.items()}

    @cached_property
    def explanations(self) -> tuple[str, ...]:
        """What the notation means, as far as it is used, then the table's own notes."""
        sentences: list[str] = []
        if self.seeds == 1 and not any(self.count(cell) for cell in self.cells):
            sentences.append("Single values (n=1): there is no spread, and no difference can be judged.")
        elif self.seeds:
            others = any(self.count(cell) for cell in self.cells)
            rest = "; another number where n is given" if others else ""
            sentences.append(f"Mean ± standard deviation over n={self.seeds} seeds{rest}.")
        if any(cell.published is not None for cell in self.cells):
            sentences.append(
                f"Published figures beside, with measured minus published and the {INTERVAL} of that difference "
                "(Student's t; the published figure's own error is not counted)."
            )
        if self.judgements:
            size = max(judgement.family for judgement in self.judgements.values())
            sentences.append(explained("t test over seeds", "each figure with the published one", size))
        return (*sentences, *self.notes)

    def footnote(self, cell: Cell) -> int | None:
        """The number of the cell's note."""
        return self.footnotes.index(cell.note) + 1 if cell.note else None

    def count(self, cell: Cell) -> str:
        """ "n=2" where a cell has another number of values than most; else ""."""
        return f"n={cell.measured.n}" if cell.measured and cell.measured.n != self.seeds else ""
