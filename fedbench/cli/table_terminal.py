"""Prints a `Table` on the terminal."""

from rich.table import Table as Grid

from fedbench.cli.terminal import results
from fedbench.tables.table import Cell, Table


def print_table(table: Table) -> None:
    """The table: means and deviations, the published figures below them, notes at the end."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), title=table.title, title_justify="left")
    grid.add_column(table.corner, no_wrap=True)
    for column in table.columns:
        grid.add_column(column, justify="right", overflow="fold")
    for label, cells in table.rows:
        grid.add_row(label, *(_lines(table, cell) for cell in cells))
    if table.banner:
        print_line(table.banner)
    results.print(grid, markup=False, highlight=False)
    for number, note in enumerate(table.footnotes, 1):
        print_line(f"[{number}] {note}")
    for note in table.explanations:
        print_line(note)


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
