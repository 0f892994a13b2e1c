"""Prints a `Table` on the terminal."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table as Grid

from fedbench.cli.terminal import results
from fedbench.tables.table import Cell, Table

GAP = 2
"""Blanks between two columns."""

WIDEST_WORDS = 24
"""Letters of a line of words in a column, at most, where not all columns fit beside each other."""


def print_table(table: Table) -> None:
    """The table: means and deviations, the published figures below them, notes at the end.

    Columns that do not fit into the width of the terminal stand below the others, with the names of the rows again.
    """
    if table.banner:
        print_line(table.banner)
    for number, places in enumerate(_parted(table, results.width)):
        if number:
            print_line("")
        results.print(_grid(table, places, results.width, is_first=not number), markup=False, highlight=False)
    for number, note in enumerate(table.footnotes, 1):
        print_line(f"[{number}] {note}")
    for note in table.explanations:
        print_line(note)


def _grid(table: Table, places: Sequence[int], width: int, *, is_first: bool = True) -> Grid:
    """Some columns of a table beside the names of the rows, which have half of the width at most."""
    grid = Grid(box=None, padding=(0, GAP, 0, 0), title=table.title if is_first else None, title_justify="left")
    labels = _label_width(table, width)
    grid.add_column(table.corner, no_wrap=labels < width // 2, overflow="fold", max_width=labels)
    for place in places:
        grid.add_column(table.columns[place], justify="right", overflow="fold")
    for label, cells in table.rows:
        grid.add_row(label, *(_lines(table, cells[place]) for place in places))
    return grid


def _label_width(table: Table, width: int) -> int:
    return min(max(map(cell_len, (table.corner, *(label for label, _ in table.rows)))), width // 2)


def _parted(table: Table, width: int) -> list[list[int]]:
    """The places of the columns in order, in as few groups as it takes for each to fit beside the names of the rows."""
    room = width - _label_width(table, width) - GAP
    groups: list[list[int]] = [[]]
    used = 0
    for place, heading in enumerate(table.columns):
        lines = [line for _, cells in table.rows for line in _lines(table, cells[place]).split("\n")]
        longest = min(max(map(cell_len, (heading, *lines))), WIDEST_WORDS)
        needed = GAP + max([longest, *(cell_len(word) for word in heading.split())])
        if groups[-1] and used + needed > room:
            groups.append([])
            used = 0
        groups[-1].append(place)
        used += needed
    return groups


def print_statements(table: Table) -> None:
    """A table of published statements: a line for each, which is too long for a column, with what was measured."""
    print_line(table.title)
    for label, (measured, verdict) in table.rows:
        print_line(f"  {verdict.shown}: {label}; measured: {measured.shown}")


def print_line(text: str) -> None:
    """Write text to stdout unchanged."""
    results.print(text, markup=False, highlight=False, soft_wrap=True)


def _lines(table: Table, cell: Cell) -> str:
    """A cell without its published figure, which stands below it with the difference."""
    footnote = table.footnote(cell)
    mark = f" [{footnote}]" if footnote else ""
    if cell.measured is None:
        published = "" if cell.published is None else f"\npublished {cell.published_words}"
        return f"{cell.shown}{mark}{published}"
    spread, number = cell.measured, cell.number
    text = number.bare(spread.mean) + (f" ± {number.unsigned(spread.std)}" if spread.n > 1 else "")
    text += f" ({table.count(cell)})" if table.count(cell) else ""
    if cell.published is None or cell.difference is None:
        return text + mark
    return f"{text}{mark}\n{cell.published_words}: {cell.difference_words}\n{table.judgements[cell].words}"
