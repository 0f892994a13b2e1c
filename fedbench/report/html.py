"""A report as one HTML file that needs nothing else: style and charts are in it, and no script."""

from collections.abc import Sequence

from markupsafe import Markup

from fedbench.report.analyses import png_data, template_functions
from fedbench.report.charts import MOST_LINES
from fedbench.report.client_accuracies import CHART_NOTE
from fedbench.report.content import Report
from fedbench.report.methods import Method
from fedbench.report.svg_chart import sample
from fedbench.report.timelines import HEADING
from fedbench.tables.html import environment, picture_html, table_html


def page(report: Report) -> str:
    """The whole file. The charts bring SVG that is escaped already; all other text is escaped by the template."""
    template = environment("fedbench.report").get_template("report.html.jinja")
    functions = {
        "table_html": table_html,
        "picture_html": picture_html,
        "png_data": png_data,
        **template_functions(),
    }
    values = {
        "title": report.title,
        "report": report,
        "legend": _legend,
        "client_note": CHART_NOTE,
        "timelines_heading": HEADING,
    }
    return template.render(**values, **functions) + "\n"


def _legend(methods: Sequence[Method]) -> list[tuple[Markup, str]]:
    """(piece of the line, title) of each method that is drawn."""
    return [(Markup(sample(style)), method.title) for style, method in enumerate(methods[:MOST_LINES])]
