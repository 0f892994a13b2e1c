"""What a report says of the methods of one task: tables and charts that go by the metric of the task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from fedbench.records.own_metrics import OWN
from fedbench.report.charts import MOST_LINES, charts
from fedbench.report.client_accuracies import PRINTED_COLUMNS, client_charts, clients_table
from fedbench.report.methods import Method
from fedbench.report.result_tables import paired_table, reached_table, results_table
from fedbench.report.shown_headline import ShownHeadline, origin
from fedbench.report.shown_metrics import ShownMetric, chosen_columns, default_target, printed
from fedbench.report.svg_chart import Chart
from fedbench.report.tasks import ranking_of
from fedbench.tables.rank_diagram import RankPicture, picture
from fedbench.tables.ranks import Ranking
from fedbench.tables.table import Table


@dataclass(frozen=True)
class TaskPart:
    """The methods of one task, compared.

    Attributes:
        name: the task, where the report has several; "": it has this one only.
        methods: those of the task.
        baseline: the method that others are measured against.
        target: of the table on what it took to reach it, in the recorded unit; None: no method has a finite value.
        results, differences, reached: tables; None where there is nothing to say.
        printed_results: `results` with as many columns as a printed page holds, unless others were asked for.
        charts: the metric against what was spent.
        chart_note: the meaning of lines and bands.
        ranking: the methods ranked over several data sets or models; None where there are none, or too few.
        rank_refusal: why they are not ranked; "" where they are, or where there is nothing to rank.
        rank_picture: the diagram of the ranking.
        clients: table of the accuracies of single clients; None where no method was scored on clients' rows.
        printed_clients: `clients` with as many columns as a printed page holds.
        client_charts: the sorted accuracies of the clients.
    """

    name: str
    methods: tuple[Method, ...]
    baseline: Method
    target: float | None
    results: Table
    printed_results: Table
    differences: Table | None
    reached: Table | None
    charts: tuple[Chart, ...]
    chart_note: str
    ranking: Ranking | None
    rank_refusal: str
    rank_picture: RankPicture | None
    clients: Table | None
    printed_clients: Table | None
    client_charts: tuple[Chart, ...]

    @property
    def headline(self) -> ShownHeadline:
        """The metric by which the methods are judged."""
        return self.methods[0].headline

    @property
    def suffix(self) -> str:
        """What stands behind the headings of this part: ": next token"; "" where it is the only one."""
        return f": {self.name.replace('_', ' ')}" if self.name else ""

    @cached_property
    def ranks(self) -> Table | None:
        """The table of the ranking."""
        return None if self.ranking is None else self.ranking.table()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of figures, which `table.csv` holds."""
        tables = (self.results, self.clients, self.differences, self.ranks, self.reached)
        return tuple(table for table in tables if table is not None)

    @property
    def printed_tables(self) -> tuple[Table, ...]:
        """The tables of figures, which `table.tex` holds."""
        tables = (self.printed_results, self.printed_clients, self.differences, self.ranks, self.reached)
        return tuple(table for table in tables if table is not None)


def task_part(
    methods: Sequence[Method],
    baseline: Method,
    target: float | None,
    columns: Sequence[str],
    name: str = "",
    own: Sequence[ShownMetric] = (),
) -> TaskPart:
    """Compare the methods of one task.

    Args:
        methods: at least one.
        baseline: one of them.
        target: to be reached, in the recorded unit; None: one that every method has about reached.
        columns: names of the main table's columns, of `COLUMNS` and `own`; (): those that some method has.
        name: of the task, where there are others.
        own: the metrics of one's own that runs of this or another task have.
    """
    task = methods[0].task
    asked = chosen_columns(columns, task, own)
    if name:  # a column that only methods of other tasks have
        asked = tuple(column for column in asked if not _is_of_others(column, methods)) or asked
    headline = methods[0].headline
    aim = default_target(methods) if target is None else target
    ranking, refusal = ranking_of(methods)
    explanation = origin(headline) if target is None else "The target was given."
    on_paper = asked or chosen_columns(printed(headline), task)
    drawn = client_charts(methods[:MOST_LINES])
    return TaskPart(
        name=name,
        methods=tuple(methods),
        baseline=baseline,
        target=aim,
        results=_labelled(results_table(methods, asked), name),
        printed_results=_labelled(results_table(methods, on_paper, gaps=bool(asked)), name),
        differences=_labelled(paired_table(methods, baseline), name) if len(methods) > 1 else None,
        reached=None if aim is None else _labelled(reached_table(methods, aim, explanation), name),
        charts=tuple(charts(methods, aim, name)),
        chart_note=_chart_note(methods, aim),
        ranking=ranking,
        rank_refusal=refusal,
        rank_picture=None if ranking is None else picture(ranking),
        clients=_labelled(clients_table(methods), name),
        printed_clients=_labelled(clients_table(methods, PRINTED_COLUMNS), name),
        client_charts=tuple(replace(chart, name=f"{chart.name}-{name}") if name else chart for chart in drawn),
    )


def _is_of_others(column: ShownMetric, methods: Sequence[Method]) -> bool:
    is_score = column.metric.is_score or column.name.startswith(OWN)
    return is_score and not any(method.spread(column.name).n for method in methods)


@overload
def _labelled(table: Table, name: str) -> Table: ...
@overload
def _labelled(table: None, name: str) -> None: ...
def _labelled(table: Table | None, name: str) -> Table | None:
    """The table with a label, and a title, of its own among those of other tasks."""
    if table is None or not name:
        return table
    return replace(table, label=f"{table.label}-{name}", title=f"{table.title} ({name.replace('_', ' ')})")


def _chart_note(methods: Sequence[Method], target: float | None) -> str:
    headline = methods[0].headline
    several = any(len(method.runs) > 1 for method in methods)
    sentences = [f"Lines: mean test {headline.words} over seeds; a letter stands at the end of each."]
    if several:
        sentences.append(
            "Bands: from the worst to the best seed. Where seeds spent different amounts, each keeps its last score "
            "until its next one, and a seed that ended earlier keeps its last one to the end."
        )
    if not headline.headline.higher_is_better:
        sentences.append("Lower is better.")
    if target is not None:
        sentences.append(f"Dotted: the target, {headline.about(target)}.")
    if len(methods) > MOST_LINES:
        sentences.append(f"Only the first {MOST_LINES} of {len(methods)} methods are drawn.")
    return " ".join(sentences)
