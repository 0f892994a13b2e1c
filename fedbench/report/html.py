"""A report as one HTML file that needs nothing else: style and charts are in it, and no script."""

from markupsafe import Markup

from fedbench.report.analyses import template_functions
from fedbench.report.charts import MOST_LINES
from fedbench.report.client_accuracies import CHART_NOTE
from fedbench.report.content import Report
from fedbench.report.svg_chart import sample
from fedbench.tables.html import environment, picture_html, table_html


def page(report: Report) -> str:
    """The whole file. The charts bring SVG that is escaped already; all other text is escaped by the template."""
    methods = report.comparison.methods[:MOST_LINES]
    legend = [(Markup(sample(style)), method.title) for style, method in enumerate(methods)]
    template = environment("fedbench.report").get_template("report.html.jinja")
    functions = {
        "table_html": table_html,
        "picture_html": picture_html,
        **template_functions(),
    }
    values = {"title": report.title, "report": report, "legend": legend, "client_note": CHART_NOTE}
    return template.render(**values, **functions) + "\n"
