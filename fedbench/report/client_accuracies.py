"""How the accuracy on held-out rows is spread over the clients: a table and charts of a report."""

from collections.abc import Sequence

import numpy as np

from fedbench.records.client_scores import CLIENT_SCORES
from fedbench.records.reader import load_measured
from fedbench.records.recorded_run import RecordedRun, Values
from fedbench.report.curves import ScoreCurve
from fedbench.report.methods import Method
from fedbench.report.result_tables import total_cell
from fedbench.report.shown_metrics import ShownMetric
from fedbench.report.svg_chart import Chart, Line
from fedbench.tables.numbers import PERCENT
from fedbench.tables.table import Table

MOST_POINTS = 100
"""Points of a curve, at most."""

COLUMNS = (
    ShownMetric("client_accuracy_mean", "mean"),
    ShownMetric("client_accuracy_std", "std"),
    ShownMetric("client_accuracy_worst_decile", "worst decile"),
    ShownMetric("client_accuracy_worst", "worst"),
    ShownMetric("client_accuracy_participants", "participants"),
    ShownMetric("client_accuracy_absentees", "absentees"),
    ShownMetric("client_accuracy_after_mean", "trained: mean"),
    ShownMetric("client_accuracy_after_std", "trained: std"),
    ShownMetric("client_accuracy_after_worst_decile", "trained: worst decile"),
    ShownMetric("client_accuracy_after_worst", "trained: worst"),
)

PRINTED_COLUMNS = 4
"""Columns that a printed page has room for: those of the global model over all clients."""

MEANING = (
    "Accuracy on rows that are held out of each client, in the last round in which clients were scored; each client "
    "counts alike. Mean, standard deviation over the clients, worst decile (mean over the worst tenth) and worst "
    "client are of the global model after the round and all clients; participants and absentees are its means over "
    "the clients that took part in the round and over the others. Trained: the participants' models after training."
)

CHART_NOTE = (
    "Clients from the worst to the best, each method's in an order of its own. Lines: mean over seeds; bands: from "
    "the worst to the best seed."
)

CHARTS = (
    ("clients-global", "global_accuracy", "Clients' accuracy, global model"),
    ("clients-trained", "after_accuracy", "Participants' accuracy, their trained models"),
)
"""(name of the chart, column of `client_scores.parquet`, title)."""


def clients_table(methods: Sequence[Method], most_columns: int | None = None) -> Table | None:
    """How each method's accuracy is spread over the clients; None where none was scored on clients' rows.

    Args:
        methods: the rows.
        most_columns: the first so many columns are shown; None: all.
    """
    columns = [column for column in COLUMNS[:most_columns] if any(method.spread(column.name).n for method in methods)]
    if not columns:
        return None
    rows = tuple((method.title, tuple(total_cell(method, column, PERCENT) for column in columns)) for method in methods)
    headings = tuple(f"{column.heading} ({PERCENT.unit})" for column in columns)
    return Table("Accuracy of single clients", "method", headings, rows, (MEANING,), label="clients")


def client_charts(methods: Sequence[Method]) -> list[Chart]:
    """The sorted accuracies of the clients, a line for each method that was scored on clients' rows.

    Args:
        methods: those to be drawn.
    """
    charts = []
    for name, column, title in CHARTS:
        curves = [(style, method, _curve(method.runs, column)) for style, method in enumerate(methods)]
        lines = tuple(
            Line(method.letter, method.label, style, curve) for style, method, curve in curves if curve is not None
        )
        if lines:
            charts.append(Chart(name, title, "clients, from the worst to the best (%)", "% of the clients", lines))
    return charts


def _curve(runs: Sequence[RecordedRun], column: str) -> ScoreCurve | None:
    """The sorted accuracies over the seeds; None where a run has none."""
    seeds = [_sorted(run, column) for run in runs]
    if not seeds or not all(len(accuracies) for accuracies in seeds):
        return None
    points = min(MOST_POINTS, *map(len, seeds))
    places = (np.arange(points) + 0.5) / points
    values = np.stack(
        [np.interp(places, (np.arange(len(accuracies)) + 0.5) / len(accuracies), accuracies) for accuracies in seeds]
    )
    return ScoreCurve(100 * places, values.mean(axis=0), values.min(axis=0), values.max(axis=0), is_stepped=False)


def _sorted(run: RecordedRun, column: str) -> Values:
    """The clients' accuracies in the last round that has them, ascending."""
    if not (run.directory / CLIENT_SCORES).is_file():
        return np.empty(0)
    table = load_measured(run.directory, CLIENT_SCORES)
    rounds, accuracies = table.column("round").to_numpy(), table.column(column).to_numpy()
    last: Values = np.sort(accuracies[(rounds == rounds.max()) & ~np.isnan(accuracies)])
    return last
