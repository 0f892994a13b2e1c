"""A `Table` written as Markdown and CSV; whatever its texts contain is escaped."""

import csv as csv_format
import io
import math
import re
from collections.abc import Iterable

from fedbench.tables.table import Cell, Table

CSV_COLUMNS = (
    "table", "row", "column", "text", "unit", "n", "mean", "std", "values",
    "published", "published_std", "difference", "low", "high", "p_value", "p_adjusted", "told_apart", "note", "banner",
)  # fmt: skip


def markdown(table: Table) -> str:
    """A pipe table, with the banner above and the notes below."""
    lines = [f"**{escaped_markdown(table.title)}**", ""]
    if table.banner:
        lines += [f"> {escaped_markdown(table.banner)}", ""]
    lines.append(_pipes(escaped_markdown(text) for text in (table.corner, *table.columns)))
    lines.append(_pipes(["---", *("---:" for _ in table.columns)]))
    for label, cells in table.rows:
        lines.append(_pipes([escaped_markdown(label), *(escaped_markdown(_plain(table, cell)) for cell in cells)]))
    lines.append("")
    lines += [f"- \\[{number}\\] {escaped_markdown(note)}" for number, note in enumerate(table.footnotes, 1)]
    lines += [f"- {escaped_markdown(note)}" for note in table.explanations]
    return "\n".join(lines).rstrip() + "\n"


def csv(table: Table) -> str:
    """One line a cell. Figures are in the unit shown, in full precision; several `values` are parted by blanks.

    `low` and `high` are the ends of the measured mean's interval.
    """
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for label, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            writer.writerow([slug(table), label, column, *_csv_figures(table, cell), cell.note, table.banner])
    return text.getvalue()


def slug(table: Table) -> str:
    """Its label as links and LaTeX take it."""
    return re.sub(r"[^a-z0-9]+", "-", (table.label or table.title).lower()).strip("-") or "table"


def _csv_figures(table: Table, cell: Cell) -> list[str]:
    spread, scale = cell.measured, cell.number.scale
    published = [_full(cell.published, scale), _full(cell.published_std, scale)]
    if spread is None:
        return [cell.shown, cell.number.unit, "0", "", "", "", *published, *[""] * 6]
    values = " ".join(_full(value, scale) for value in spread.values)
    measured = [str(spread.n), _full(spread.mean, scale), _full(spread.std, scale), values]
    compared = [_full(cell.difference, scale), *(_full(end, scale) for end in spread.interval or (None, None))]
    judged = table.judgements[cell].to_mapping().values() if cell in table.judgements else (None, None, None)
    concluded = ["" if value is None else str(value).lower() for value in judged]
    return [_plain(table, cell), cell.number.unit, *measured, *published, *compared, *concluded]


def _full(value: float | None, scale: float) -> str:
    return "" if value is None or math.isnan(value) else f"{value * scale:.10g}"


def plain_value(cell: Cell) -> str:
    """The mean with its deviation, or the text of a cell that has no values."""
    spread = cell.measured
    if spread is None:
        return cell.shown
    return cell.number.bare(spread.mean) + (f" ± {cell.number.unsigned(spread.std)}" if spread.n > 1 else "")


def _plain(table: Table, cell: Cell) -> str:
    """A cell as one line of text."""
    text = plain_value(cell)
    if count := table.count(cell):
        text += f" ({count})"
    if published := published_and_verdict(table, cell):
        text += f"; {published}"
    if (footnote := table.footnote(cell)) is not None:
        text += f" [{footnote}]"
    return text


def published_and_verdict(table: Table, cell: Cell) -> str:
    """The published figure, the difference with its interval, and what is concluded; "" without a published figure."""
    if cell.published is None:
        return ""
    figure = f"published {cell.published_words}"
    if cell not in table.judgements:
        return figure
    return f"{figure}: {cell.difference_words}, {table.judgements[cell].words}"


def escaped_markdown(text: str) -> str:
    """On one line, and nothing in it taken for markup."""
    escaped = re.sub(r"([\\`*_|<>\[\]#~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"&(?=[#\w])", r"\\&", escaped)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
