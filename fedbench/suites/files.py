"""A suite's table as files: Markdown, LaTeX, HTML, CSV and JSON, each replaced whole."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from fedbench.atomic_files import replace_text
from fedbench.suites.results import Outcomes
from fedbench.tables import render
from fedbench.tables.table import Table

TABLE = "table"
"""The folder of the files, below the suite's."""


def write_outputs(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Write the table as far as the runs have come.

    Returns:
        The files.

    Raises:
        OSError: they cannot be written.
    """
    table = outcomes.table()
    texts = {
        "table.md": render.markdown(table),
        "table.html": html_page(table),
        "table.tex": render.latex(table),
        "table.csv": render.csv(table),
        "suite.json": json.dumps(outcomes.to_mapping(), indent=2, ensure_ascii=False) + "\n",
    }
    (folder / TABLE).mkdir(parents=True, exist_ok=True)
    return [replace_text(folder / TABLE / name, text) for name, text in texts.items()]


def html_page(table: Table) -> str:
    """A table as a page that needs nothing else."""
    style = files("fedbench.report").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(table.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{render.html(table)}</main>\n</body>\n</html>\n"
    )
