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
    table, statements = outcomes.table(), outcomes.statements()
    tables = [table] if statements is None else [table, statements]
    head, *_ = render.csv(table).splitlines()
    lines = [line for one in tables for line in render.csv(one).split("\n", 1)[1].splitlines()]
    texts = {
        "table.md": "\n".join(map(render.markdown, tables)),
        "table.html": table_page(*tables),
        "table.tex": "\n".join(map(latex, tables)),
        "table.csv": "\n".join([head, *lines]) + "\n",
        "suite.json": json.dumps(outcomes.to_mapping(), indent=2, ensure_ascii=False) + "\n",
    }
    (folder / TABLE).mkdir(parents=True, exist_ok=True)
    return [replace_text(folder / TABLE / name, text) for name, text in texts.items()]
