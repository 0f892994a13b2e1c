"""A report as one HTML file that needs nothing else: style and charts are in it, and no script."""

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from fedbench.report.caveats import Problem
from fedbench.report.charts import MOST_LINES
from fedbench.report.content import Recipe, Report
from fedbench.report.methods import Method
from fedbench.report.svg_chart import Chart, sample
from fedbench.tables import render
from fedbench.tables.table import Table


def page(report: Report) -> str:
    """The whole file."""
    style = files("fedbench.report").joinpath("report.css").read_text(encoding="utf-8")
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style>\n</head>\n"
    )
    body = "\n".join(_body(report))
    return f"{head}<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"


def _body(report: Report) -> Iterator[str]:
    methods = report.comparison.methods
    yield f"<h1>{escape(report.title)}</h1>"
    yield f"<p>{escape(' '.join(report.intro))}</p>"
    yield from _problems(report.comparison.problems)
    yield from _section("Results", report.results)
    yield from _charts(report.charts, methods, report.chart_note)
    yield from _section("Until the target", report.reached)
    yield from _section("Differences, seed by seed", report.differences)
    yield from _section("In what the methods differ", report.settings)
    if report.partitions:
        yield "<h2>What each client holds</h2>"
        for picture in report.partitions:
            caption = f"{picture.title}; clients across, classes down"
            yield f"<figure><figcaption>{escape(caption)}</figcaption>\n{picture.to_svg()}</figure>"
            if picture.clients < len(picture.counts):
                yield f"<p>The first {picture.clients} of {len(picture.counts)} clients.</p>"
    yield "<h2>To reproduce it</h2>"
    yield "<p>The results depend on these versions:</p>"
    yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in report.versions)}</ul>"
    yield render.html(report.runs)
    for recipe in report.recipes:
        yield from _recipe(recipe)
    yield f"<h3>This report</h3>\n<pre>{escape(report.command)}</pre>"


def _problems(problems: Sequence[Problem]) -> Iterator[str]:
    if not problems:
        return
    yield '<h2>Read this first</h2>\n<ul class="problems">'
    for problem in problems:
        kind = problem.severity.replace(" ", "-")
        yield f'<li class="{kind}"><strong>{problem.severity}:</strong> {escape(problem.text)}</li>'
    yield "</ul>"


def _section(heading: str, table: Table | None) -> Iterator[str]:
    if table is not None:
        yield f"<h2>{escape(heading)}</h2>"
        yield render.html(table)


def _charts(charts: Sequence[Chart], methods: Sequence[Method], note: str) -> Iterator[str]:
    if not charts:
        return
    yield '<h2>Accuracy against what was spent</h2>\n<ul class="legend">'
    for style, method in enumerate(methods[:MOST_LINES]):
        yield f"<li>{sample(style)}<span>{escape(method.title)}</span></li>"
    yield f'</ul>\n<p class="notes">{escape(note)}</p>\n<div class="charts">'
    for chart in charts:
        yield f"<figure><figcaption>{escape(chart.title)}</figcaption>\n{chart.to_svg()}</figure>"
    yield "</div>"


def _recipe(recipe: Recipe) -> Iterator[str]:
    yield f"<h3>{escape(recipe.method.title)}</h3>"
    yield f"<details><summary>Save this as {escape(recipe.file)}</summary>\n<pre>{escape(recipe.yaml)}</pre></details>"
    yield f"<pre>{escape(chr(10).join(recipe.commands))}</pre>"
