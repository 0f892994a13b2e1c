"""A suite's table as files: Markdown, LaTeX, HTML, CSV and JSON, each replaced whole."""

import json
from pathlib import Path

from fedbench.suites.results import Outcomes
from fedbench.system.atomic_files import replace_text, replacing
from fedbench.tables import render
from fedbench.tables.html import table_page
from fedbench.tables.latex import latex
from fedbench.tables.rank_diagram import RankPicture, picture

TABLE = "table"
"""The folder of the files, below the suite's."""


def write_outputs(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Write the table as far as the runs have come; diagrams of ranks when all of them are done.

    Returns:
        The files.

    Raises:
        OSError: they cannot be written.
    """
    table, statements = outcomes.table(), outcomes.statements()
    rankings = outcomes.ranks().rankings
    further = [outcomes.differences(), *(ranking.table() for ranking in rankings), statements]
    tables = [table, *(shown for shown in further if shown is not None)]
    pictures = [] if outcomes.missing else [picture(ranking) for ranking in rankings]
    head, *_ = render.csv(table).splitlines()
    lines = [line for each in tables for line in render.csv(each).split("\n", 1)[1].splitlines()]
    texts = {
        "table.md": "\n".join([*map(render.markdown, tables), *map(_picture_markdown, pictures)]),
        "table.html": table_page(tables, pictures),
        "table.tex": "\n".join(map(latex, tables)),
        "table.csv": "\n".join([head, *lines]) + "\n",
        "suite.json": json.dumps(outcomes.to_mapping(), indent=2, ensure_ascii=False) + "\n",
    }
    (folder / TABLE).mkdir(parents=True, exist_ok=True)
    contents = {f"{shown.name}.{kind}": content for shown in pictures for kind, content in shown.files.items()}
    for stale in (folder / TABLE).glob("ranks-*"):
        if stale.name not in contents:
            stale.unlink()
    for name, content in contents.items():
        with replacing(folder / TABLE / name) as temporary:
            temporary.write_bytes(content)
    written = [replace_text(folder / TABLE / name, text) for name, text in texts.items()]
    return [*written, *(folder / TABLE / name for name in contents)]


def _picture_markdown(shown: RankPicture) -> str:
    image = f"![{render.escaped_markdown(shown.title)}]({shown.name}.svg)\n\n" if shown.files else ""
    return f"{image}{render.escaped_markdown(shown.note)}\n"
