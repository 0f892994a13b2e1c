"""A `Table` written as Markdown, LaTeX and CSV; whatever its texts contain is escaped."""

import csv as csv_format
import io
import math
import re
from collections.abc import Iterable

from fedbench.tables.table import Cell, Table

CSV_COLUMNS = (
    "table", "row", "column", "text", "unit", "n", "mean", "std", "values",
    "published", "published_std", "difference", "within_interval", "note", "banner",
)  # fmt: skip

MOST_COLUMNS = 4
WIDE = "; wider than a page's text: leave columns out, or use sidewaystable of the package rotating"

LATEX = {
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
}


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


def latex(table: Table) -> str:
    """A `table` environment with booktabs' rules; the preamble needs `\\usepackage{booktabs}`."""
    head = " & ".join(_tex(text) for text in (table.corner, *table.columns))
    lines = [
        "% needs \\usepackage{booktabs}" + (WIDE if len(table.columns) > MOST_COLUMNS else ""),
        r"\begin{table}",
        r"\centering" + (r"\footnotesize" if len(table.columns) > MOST_COLUMNS else ""),
        rf"\caption{{{_tex(table.title)}}}",
        rf"\label{{tab:{slug(table)}}}",
    ]
    if table.banner:
        lines.append(rf"\par\textbf{{{_tex(table.banner)}}}\par\medskip")
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for label, cells in table.rows:
        lines.append(" & ".join([_tex(label), *(_tex_cell(table, cell) for cell in cells)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [rf"\textsuperscript{{{number}}} {_tex(note)}" for number, note in enumerate(table.footnotes, 1)]
    notes += [_tex(note) for note in table.explanations]
    lines += [rf"\par\smallskip{{\footnotesize {note}\par}}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def csv(table: Table) -> str:
    """One line a cell. Figures are in the unit shown, in full precision; several `values` are parted by blanks."""
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
        return [cell.shown, cell.number.unit, "0", "", "", "", *published, "", ""]
    within = "" if cell.is_within is None else str(cell.is_within).lower()
    values = " ".join(_full(value, scale) for value in spread.values)
    measured = [str(spread.n), _full(spread.mean, scale), _full(spread.std, scale), values]
    return [_plain(table, cell), cell.number.unit, *measured, *published, _full(cell.difference, scale), within]


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
    if published := published_and_verdict(cell):
        text += f"; {published}"
    if (footnote := table.footnote(cell)) is not None:
        text += f" [{footnote}]"
    return text


def published_and_verdict(cell: Cell) -> str:
    """The published figure, the difference, and whether it means anything."""
    if cell.published is None:
        return ""
    figure = f"published {cell.published_words}"
    if cell.difference is None:
        return figure
    return f"{figure}: {cell.number.signed(cell.difference)}, {cell.verdict}"


def escaped_markdown(text: str) -> str:
    """On one line, and nothing in it taken for markup."""
    escaped = re.sub(r"([\\`*_|<>\[\]#~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"&(?=[#\w])", r"\\&", escaped)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tex(text: str) -> str:
    escaped = "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would become a dash


def _tex_cell(table: Table, cell: Cell) -> str:
    number, spread = cell.number, cell.measured
    text = _tex(cell.shown)
    if spread is not None:
        deviation = rf" \pm {_tex_number(number.unsigned(spread.std))}" if spread.n > 1 else ""
        text = f"${_tex_number(number.bare(spread.mean))}{deviation}$"
    if count := table.count(cell):
        text += f" ({_tex(count)})"
    if published := published_and_verdict(cell):
        text += rf" {{\footnotesize {_tex(published)}}}"
    if (footnote := table.footnote(cell)) is not None:
        text += rf"\textsuperscript{{{footnote}}}"
    return text


def _tex_number(text: str) -> str:
    """In formulas a comma would be followed by a gap."""
    return text.replace(",", "{,}")
