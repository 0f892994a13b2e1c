"""A suite's table as files: Markdown, LaTeX, HTML, CSV and JSON, each replaced whole."""

import json
from pathlib import Path

from fedbench.suites.results import Outcomes
from fedbench.system.atomic_files import replace_text
from fedbench.tables import render
from fedbench.tables.html import table_page
from fedbench.tables.latex import latex

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
        "table.html": table_page(table),
        "table.tex": latex(table),
        "table.csv": render.csv(table),
        "suite.json": json.dumps(outcomes.to_mapping(), indent=2, ensure_ascii=False) + "\n",
    }
    (folder / TABLE).mkdir(parents=True, exist_ok=True)
    return [replace_text(folder / TABLE / name, text) for name, text in texts.items()]
