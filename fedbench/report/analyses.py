"""Analyses of recorded runs on a page: tables and pictures in one HTML file that needs nothing else."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbench.records.recorded_analysis import FOLDER, PAGE, RecordedAnalysis, ShownPicture, ShownTable
from fedbench.records.recorded_analysis import recorded_analyses as read_recorded
from fedbench.system.atomic_files import replace_text
from fedbench.tables.html import environment, table_html
from fedbench.tables.table import Cell, Table

PICTURES = "analysis-"
"""Beginning of the names of the pictures of analyses among a report's charts."""


@dataclass(frozen=True)
class Analyses:
    """The analyses of some runs.

    Attributes:
        shown: each once, also where several runs have it.
        faults: one line for each that cannot be read.
    """

    shown: tuple[RecordedAnalysis, ...]
    faults: tuple[str, ...]


NO_ANALYSES = Analyses((), ())


def analyses_of(directories: Iterable[Path]) -> Analyses:
    """The analyses that run directories, or the folder of a suite, hold."""
    shown: dict[str, RecordedAnalysis] = {}
    faults: list[str] = []
    for directory in directories:
        whole, unreadable = read_recorded(directory)
        faults += unreadable
        for analysis in whole:
            shown.setdefault(analysis.content, analysis)
    return Analyses(tuple(shown.values()), tuple(faults))


def as_table(table: ShownTable, label: str = "") -> Table:
    """The table as `fedbench.tables` takes it.

    Args:
        table: the texts.
        label: identifies it on a page.
    """
    rows = tuple((name, tuple(map(Cell, texts))) for name, texts in table.rows)
    return Table(table.title, table.corner, table.columns, rows, table.notes, label)


def picture_name(number: int, picture: ShownPicture) -> str:
    """The file of a picture among a report's charts.

    Args:
        number: of the analysis in the report, from 1.
        picture: of this analysis.
    """
    return f"{PICTURES}{number}-{picture.file.name}"


def write_page(directory: Path, title: str) -> Path:
    """Write the page of all analyses of a run or a suite; returns its file.

    Args:
        directory: the run directory, or the folder of the suite.
        title: of the page.

    Raises:
        OSError: the page cannot be written.
    """
    return replace_text(directory / FOLDER / PAGE, page(analyses_of([directory]), title))


def page(analyses: Analyses, title: str) -> str:
    """The whole file; all text is escaped by the template."""
    template = environment("fedbench.report").get_template("analyses.html.jinja")
    return template.render(title=title, analyses=analyses, **template_functions()) + "\n"


def template_functions() -> dict[str, object]:
    """What the template of an analysis calls, by name."""
    return {"analysis_tables": _tables, "picture_data": _picture_data}


def _tables(analysis: RecordedAnalysis) -> Sequence[str]:
    labels = (f"{analysis.name}-{number}" for number in range(1, len(analysis.tables) + 1))
    return [table_html(as_table(table, label)) for table, label in zip(analysis.tables, labels, strict=True)]


def _picture_data(picture: ShownPicture) -> str:
    return png_data(picture.file.read_bytes())


def png_data(png: bytes) -> str:
    """A picture as a `data:` address, so that the page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
