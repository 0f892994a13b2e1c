"""The files of a report; each is replaced whole."""

from pathlib import Path

from fedbench.atomic_files import replace_text
from fedbench.errors import ConfigError
from fedbench.report.content import Report
from fedbench.report.html import page
from fedbench.report.markdown import markdown
from fedbench.tables import render

PAGE, TEXT, CSV, LATEX = "report.html", "report.md", "table.csv", "table.tex"


def write_report(report: Report, directory: Path) -> list[Path]:
    """Write a report.

    Args:
        directory: made if it is not there; files of other names in it are left alone.

    Returns:
        `report.html`, `report.md`, `table.csv`, `table.tex`.

    Raises:
        ConfigError: the directory cannot be written.
    """
    head, *_ = render.csv(report.results).splitlines()
    lines = [line for table in report.tables for line in render.csv(table).split("\n", 1)[1].splitlines()]
    contents = {
        PAGE: page(report),
        TEXT: markdown(report),
        CSV: "\n".join([head, *lines]) + "\n",
        LATEX: "\n".join(render.latex(table) for table in report.tables),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [replace_text(directory / name, text) for name, text in contents.items()]
    except OSError as error:
        raise ConfigError(f"--output {directory}: cannot be written: {error.strerror}; name another folder") from None
