"""How the metric of a task on held-out rows is spread over the clients: a table and charts of a report."""

from collections.abc import Sequence

import numpy as np

from fedbench.records.client_scores import CLIENT_SCORES, SPREAD
from fedbench.records.headline import ACCURACY
from fedbench.records.reader import load_measured
from fedbench.records.recorded_run import RecordedRun, Values
from fedbench.report.curves import ScoreCurve
from fedbench.report.methods import Method
from fedbench.report.result_tables import total_cell
from fedbench.report.shown_headline import ShownHeadline
from fedbench.report.shown_metrics import ShownMetric
from fedbench.report.svg_chart import Chart, Line
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
    "{} on rows that are held out of each client, in the last round in which clients were scored; each client "
    "counts alike. Mean, standard deviation over the clients, worst decile (mean over the worst tenth) and worst "
    "client are of the global model after the round and all clients; participants and absentees are its means over "
    "the clients that took part in the round and over the others. Trained: the participants' models after training."
)

MEANING_OF_SPREAD = (
    "{} on rows that are held out of each client, in the last round in which clients were scored, of the global model "
    "after the round and all clients; each client counts alike. Mean, standard deviation over the clients, worst "
    "decile (mean over the worst tenth) and worst client."
)

CHART_NOTE = (
    "Clients from the worst to the best, each method's in an order of its own. Lines: mean over seeds; bands: from "
    "the worst to the best seed."
)

CHARTS = (
    ("clients-global", "global", "Clients' {}, global model"),
    ("clients-trained", "after", "Participants' {}, their trained models"),
)
"""(name of the chart, beginning of its column of `client_scores.parquet`, title with a place for the metric)."""


def clients_table(methods: Sequence[Method], most_columns: int | None = None) -> Table | None:
    """How each method's metric is spread over the clients; None where none was scored on clients' rows.

    Args:
        methods: the rows, of one task.
        most_columns: the first so many columns are shown; None: all.
    """
    headline = methods[0].headline
    of_metric = COLUMNS if headline.headline == ACCURACY else _columns_of(headline)
    columns = [column for column in of_metric[:most_columns] if any(method.spread(column.name).n for method in methods)]
    if not columns:
        return None
    values = [value for method in methods for column in columns for value in method.summaries(column.name).values()]
    number = headline.number(values)
    rows = tuple((method.title, tuple(total_cell(method, column, number) for column in columns)) for method in methods)
    headings = tuple(headline.with_unit(column.heading) for column in columns)
    notes = (MEANING.format(headline.title) if of_metric is COLUMNS else MEANING_OF_SPREAD.format(headline.title),)
    return Table(f"{headline.title} of single clients", "method", headings, rows, notes, label="clients")


def _columns_of(headline: ShownHeadline) -> tuple[ShownMetric, ...]:
    """The columns of a metric that is not accuracy, of the global model over all clients."""
    return tuple(
        ShownMetric(f"client_{headline.headline.name}_{figure}", figure.replace("_", " ")) for figure in SPREAD
    )


def client_charts(methods: Sequence[Method]) -> list[Chart]:
    """The sorted scores of the clients, a line for each method that was scored on clients' rows.

    Args:
        methods: those to be drawn, of one task.
    """
    charts: list[Chart] = []
    if not methods:
        return charts
    headline = methods[0].headline
    figure = "accuracy" if headline.headline == ACCURACY else "score"
    for name, model, title in CHARTS:
        curves = [(style, method, _curve(method.runs, f"{model}_{figure}")) for style, method in enumerate(methods)]
        lines = tuple(
            Line(method.letter, method.label, style, curve) for style, method, curve in curves if curve is not None
        )
        if lines:
            x_label = "clients, from the worst to the best (%)"
            words = title.format(headline.words)
            charts.append(Chart(name, words, x_label, "% of the clients", lines, shown=headline))
    return charts


def _curve(runs: Sequence[RecordedRun], column: str) -> ScoreCurve | None:
    """The sorted scores over the seeds; None where a run has none."""
    seeds = [_sorted(run, column) for run in runs]
    if not seeds or not all(len(scores) for scores in seeds):
        return None
    points = min(MOST_POINTS, *map(len, seeds))
    places = (np.arange(points) + 0.5) / points
    values = np.stack([np.interp(places, (np.arange(len(scores)) + 0.5) / len(scores), scores) for scores in seeds])
    return ScoreCurve(100 * places, values.mean(axis=0), values.min(axis=0), values.max(axis=0), is_stepped=False)


def _sorted(run: RecordedRun, column: str) -> Values:
    """The clients' scores in the last round that has them, from the worst to the best."""
    if not (run.directory / CLIENT_SCORES).is_file():
        return np.empty(0)
    table = load_measured(run.directory, CLIENT_SCORES)
    rounds, scores = table.column("round").to_numpy(), table.column(column).to_numpy()
    last: Values = np.sort(scores[(rounds == rounds.max()) & ~np.isnan(scores)])
    return last if run.headline.higher_is_better else last[::-1]
