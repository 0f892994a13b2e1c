"""The files of a report; each is replaced whole."""

from collections.abc import Iterator
from pathlib import Path

from fedbench.errors import ConfigError
from fedbench.report.analyses import PICTURES, picture_name
from fedbench.report.charts import AXES, chart_name
from fedbench.report.client_accuracies import CHARTS as CLIENT_CHARTS
from fedbench.report.content import MOST_PARTITIONS, Report
from fedbench.report.html import page
from fedbench.report.markdown import markdown
from fedbench.report.pdf_file import chart_pdf, heatmap_pdf
from fedbench.report.svg_file import chart_svg, heatmap_svg
from fedbench.report.timelines import MOST_TIMELINES, timeline_name
from fedbench.system.atomic_files import replace_text, replacing
from fedbench.tables import render
from fedbench.tables.latex import latex
from fedbench.tasks.kinds import TASKS

PAGE, TEXT, CSV, LATEX = "report.html", "report.md", "table.csv", "table.tex"

CHARTS = "charts"
"""The folder of the charts, below the report's."""


def write_report(report: Report, directory: Path) -> list[Path]:
    """Write a report.

    Args:
        directory: made if it is not there; files of other names in it are left alone.

    Returns:
        `report.html`, `report.md`, `table.csv`, `table.tex`, each chart as `charts/NAME.svg` and `charts/NAME.pdf`, and
        each picture of an analysis and of clients' time as `charts/NAME.png`; those of an earlier report in this folder
        that this one does not have are removed.

    Raises:
        ConfigError: the directory cannot be written.
    """
    head, *_ = render.csv(report.parts[0].results).splitlines()
    lines = [line for table in report.tables for line in render.csv(table).split("\n", 1)[1].splitlines()]
    contents = {
        PAGE: page(report),
        TEXT: markdown(report),
        CSV: "\n".join([head, *lines]) + "\n",
        LATEX: "\n".join(latex(table) for table in report.printed_tables),
    }
    pictures = dict(_pictures(report))
    tasks = ("", *TASKS)
    known = [chart_name(axis.key, task) for axis in AXES for task in tasks]
    known += [f"{name}-{task}".rstrip("-") for name, _, _ in CLIENT_CHARTS for task in tasks]
    known += [f"partition-{number + 1}" for number in range(MOST_PARTITIONS)]
    try:
        (directory / CHARTS).mkdir(parents=True, exist_ok=True)
        written = [replace_text(directory / name, text) for name, text in contents.items()]
        earlier = {f"{name}.{kind}" for name in known for kind in ("svg", "pdf")}
        earlier |= {path.name for path in (directory / CHARTS).glob(f"{PICTURES}*.png")}
        earlier |= {path.name for path in (directory / CHARTS).glob("ranks-*")}
        earlier |= {f"{timeline_name(number + 1)}.png" for number in range(MOST_TIMELINES)}
        for stale in earlier - pictures.keys():
            (directory / CHARTS / stale).unlink(missing_ok=True)
        for name, content in pictures.items():
            with replacing(directory / CHARTS / name) as temporary:
                temporary.write_bytes(content)
        return written + [directory / CHARTS / name for name in pictures]
    except OSError as error:
        raise ConfigError(f"--output {directory}: cannot be written: {error.strerror}; name another folder") from None


def _pictures(report: Report) -> Iterator[tuple[str, bytes]]:
    """(name of the file, content) of each chart."""
    for chart in (chart for part in report.parts for chart in (*part.charts, *part.client_charts)):
        yield f"{chart.name}.svg", chart_svg(chart).encode()
        yield f"{chart.name}.pdf", chart_pdf(chart)
    for heatmap in report.partitions:
        yield f"{heatmap.name}.svg", heatmap_svg(heatmap).encode()
        yield f"{heatmap.name}.pdf", heatmap_pdf(heatmap)
    for shown in filter(None, (part.rank_picture for part in report.parts)):
        for kind, content in shown.files.items():
            yield f"{shown.name}.{kind}", content
    for timeline in report.timelines.shown:
        yield f"{timeline.name}.png", timeline.png
    for number, analysis in enumerate(report.analyses.shown, 1):
        for picture in analysis.pictures:
            yield picture_name(number, picture), picture.file.read_bytes()
