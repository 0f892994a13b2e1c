"""A `Table` as LaTeX that fits the text of a page.

Widths are added up beforehand, in digits of Computer Modern at `\\small`: an article in 10 pt has a text of 345 pt, in
which 74 such digits fit. Row labels, headings and words are broken into lines, and columns that still do not fit stand
in a further table, so that no box is overfull.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from fedbench.tables.render import slug
from fedbench.tables.table import Cell, Table

TEXT = 72.0
"""Width of a page's text, in digits."""

GAP = 1.4
"""Width between two columns (twice `\\tabcolsep`, 3 pt), in digits."""

SMALLER = 0.79
"""Width of `\\scriptsize` against `\\small`."""

LONGEST_LINE = 16
"""Letters of a line of words in a cell, unless a column is wider anyway."""

NARROWEST_LABELS, WIDEST_LABELS = 14.0, 30.0
"""Width that row labels are given at least, where they need it, and at most while columns are placed."""

PACKAGES = "% needs \\usepackage{booktabs,tabularx}; made for a text of 345 pt: in two columns, use table* for table\n"

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after a row's end, a bracket or a star would be taken for its argument
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "\N{MINUS SIGN}": "$-$",
    "µ": r"$\mu$",
    "…": r"\dots{}",
}

WIDTHS = {" ": 0.7, ".": 0.6, ",": 0.6, ":": 0.6, "±": 2.5, "%": 1.7, "m": 1.7, "w": 1.5, "M": 1.9, "W": 2.1, "-": 0.8}
"""Widths of letters that are not about as wide as a digit; other capitals have `CAPITAL`."""

CAPITAL = 1.5


@dataclass(frozen=True)
class _Block:
    """Some lines of a cell, one below the other.

    Attributes:
        lines: LaTeX.
        width: of the widest of them, in digits.
    """

    lines: tuple[str, ...]
    width: float

    def tex(self, place: str) -> str:
        """The block as one cell; several lines begin at the row's top or end at its bottom (`place`: "t" or "b")."""
        if len(self.lines) == 1:
            return self.lines[0]
        stacked = r"\\".join(self.lines)
        return rf"\begin{{tabular}}[{place}]{{@{{}}r@{{}}}}{stacked}\end{{tabular}}"


@dataclass(frozen=True)
class _Column:
    """One column: its heading and its cells, row by row."""

    heading: _Block
    cells: tuple[_Block, ...]

    @property
    def width(self) -> float:
        """The width of the column and of the gap before it, in widths of a digit."""
        return GAP + max(block.width for block in (self.heading, *self.cells))


def latex(table: Table) -> str:
    """`table` environments with booktabs' rules, as many as it takes for each to fit a page; notes are below the last.

    The preamble needs `\\usepackage{booktabs,tabularx}`.
    """
    columns = [_column(table, place) for place in range(len(table.columns))]
    labels = [table.corner, *(label for label, _ in table.rows)]
    pieces = [piece for label in labels for word in label.split() for piece in _breakable(word)]
    for_labels = min(WIDEST_LABELS, max(NARROWEST_LABELS, *map(width, pieces)), max(map(width, labels)))
    parts = _parted(columns, TEXT - for_labels)
    texts = [_environment(table, part, number, len(parts)) for number, part in enumerate(parts, 1)]
    return PACKAGES + "\n".join(texts)


def width(text: str) -> float:
    """The width of a text in digits of its size, rather too large than too small."""
    return sum(WIDTHS.get(letter, CAPITAL if letter.isupper() else 1.0) for letter in text)


def escaped(text: str) -> str:
    """On one line, nothing in it taken for a command; long words may be broken behind `=`, `_`, `/`, `:` and `.`."""
    lines = []
    for piece in _breakable(" ".join(text.split())):
        letters = "".join(ESCAPES.get(letter, letter) for letter in piece)
        letters = re.sub(r"(?<![\w-])-(?=\d)", "$-$", letters)
        lines.append(re.sub("-(?=-)", "-{}", letters))  # two hyphens would become a dash
    return r"\allowbreak{}".join(lines)


def _breakable(text: str) -> list[str]:
    """The text, parted where a line may be broken within a word."""
    return re.split(r"(?<=[=_/:])(?=[^\s\d])|(?<=\w\.)(?=[A-Za-z])", text)


def _parted(columns: Sequence[_Column], room: float) -> list[list[_Column]]:
    """The columns in order, in as few tables as it takes for the columns of each to fit into `room` digits."""
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and sum(other.width for other in parts[-1]) + column.width > room:
            parts.append([])
        parts[-1].append(column)
    return parts


def _environment(table: Table, columns: Sequence[_Column], number: int, count: int) -> str:
    labels = [table.corner, *(label for label, _ in table.rows)]
    is_narrow = max(map(width, labels)) + sum(column.width for column in columns) <= TEXT
    name = "tabular" if is_narrow else "tabularx"
    first = "l" if is_narrow else r">{\raggedright\arraybackslash}X"
    wide = "" if is_narrow else r"{\linewidth}"
    opening = rf"\begin{{{name}}}{wide}{{@{{}}{first}{'r' * len(columns)}@{{}}}}"
    of = f" ({number} of {count})" if count > 1 else ""
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escaped(table.title + of)}}}",
        rf"\label{{tab:{slug(table)}{f'-{number}' if number > 1 else ''}}}",
    ]
    if table.banner:
        lines.append(rf"\par\textbf{{{escaped(table.banner)}}}\par\medskip")
    head = [escaped(table.corner), *(column.heading.tex("b") for column in columns)]
    lines += [opening, r"\toprule", rf"{' & '.join(head)} \\", r"\midrule"]
    for place, (label, _) in enumerate(table.rows):
        cells = [escaped(label), *(column.cells[place].tex("t") for column in columns)]
        lines.append(rf"{' & '.join(cells)} \\")
    lines += [r"\bottomrule", rf"\end{{{name}}}", *(_notes(table) if number == count else ())]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _notes(table: Table) -> list[str]:
    """The footnotes and explanations, in a box as wide as the text."""
    notes = [rf"\textsuperscript{{{number}}} {escaped(note)}" for number, note in enumerate(table.footnotes, 1)]
    notes += [escaped(note) for note in table.explanations]
    if not notes:
        return []
    box = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
    return [box, *(rf"{note}\par" for note in notes), r"\end{minipage}"]


def _column(table: Table, place: int) -> _Column:
    cells = tuple(_cell(table, cells[place]) for _, cells in table.rows)
    widest = max((block.width for block in cells), default=0.0)
    return _Column(_words(table.columns[place], int(max(widest, LONGEST_LINE / 2))), cells)


def _words(text: str, letters: int) -> _Block:
    """A text in lines of so many letters, more where a word is longer."""
    lines = textwrap.wrap(" ".join(text.split()), letters, break_long_words=False, break_on_hyphens=False) or [""]
    broken = [piece for line in lines for piece in textwrap.wrap(line, max(letters, 2 * LONGEST_LINE)) or [""]]
    return _Block(tuple(map(escaped, broken)), max(map(width, broken)))


def _cell(table: Table, cell: Cell) -> _Block:
    """A cell: the figure or the words, and below them the published figure with what the two come to."""
    number, spread = cell.number, cell.measured
    if spread is None:
        shown = _words(cell.shown, LONGEST_LINE)
    else:
        mean, deviation = number.bare(spread.mean), number.unsigned(spread.std) if spread.n > 1 else ""
        formula = f"${_number(mean)} \\pm {_number(deviation)}$" if deviation else f"${_number(mean)}$"
        shown = _Block((formula,), width(mean) + (width(f"±{deviation}") if deviation else 0))
    lines, widest = list(shown.lines), shown.width
    if count := table.count(cell):
        lines[-1] += f" ({escaped(count)})"
        widest += width(f" ({count})")
    if (footnote := table.footnote(cell)) is not None:
        lines[-1] += rf"\textsuperscript{{{footnote}}}"
        widest += SMALLER * width(str(footnote))
    for words in _published(table, cell):
        lines.append(rf"{{\scriptsize {escaped(words)}}}")
        widest = max(widest, SMALLER * width(words))
    return _Block(tuple(lines), widest)


def _published(table: Table, cell: Cell) -> list[str]:
    """Lines on the published figure; [] where there is none."""
    if cell.published is None:
        return []
    words = [f"published {cell.published_words}"]
    if cell in table.judgements:
        verdict, _, p_values = table.judgements[cell].words.partition(" (")
        words += [cell.difference_words, verdict, *([p_values.rstrip(")")] if p_values else [])]
    return words


def _number(text: str) -> str:
    """In formulas a comma would be followed by a gap."""
    return text.replace(",", "{,}")
