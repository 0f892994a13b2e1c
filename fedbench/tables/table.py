"""Tables of figures over seeds: what is in a cell, whatever it is written as.

A table knows nothing of runs. `fedbench.tables.render` writes it as Markdown, LaTeX, HTML and CSV.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

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
        published_std: the deviation printed with it; shown, and not counted in the verdict.
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
    def is_within(self) -> bool | None:
        """Whether the published figure lies within the measured mean's interval; None where that cannot be judged."""
        if self.measured is None or self.published is None:
            return None
        return self.measured.holds(self.published)

    @property
    def verdict(self) -> str:
        """What `is_within` says, in words; "" without a published figure or without values."""
        if self.difference is None:
            return ""
        if self.is_within is None:
            return "n=1, cannot be judged" if self.measured and self.measured.n == 1 else "cannot be judged"
        return f"within the {INTERVAL}" if self.is_within else f"outside the {INTERVAL}"


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
                "Published figures beside, with measured minus published, and whether that is within "
                f"the {INTERVAL} of the measured mean (Student's t; the published figure's own error is not counted)."
            )
        return (*sentences, *self.notes)

    def footnote(self, cell: Cell) -> int | None:
        """The number of the cell's note."""
        return self.footnotes.index(cell.note) + 1 if cell.note else None

    def count(self, cell: Cell) -> str:
        """ "n=2" where a cell has another number of values than most; else ""."""
        return f"n={cell.measured.n}" if cell.measured and cell.measured.n != self.seeds else ""
