"""What a report says, whatever it is written as."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import yaml

from fedbench.config.identity import portable
from fedbench.errors import ConfigError
from fedbench.records.reader import CLIENTS, EVENTS
from fedbench.records.recorded_run import RecordedRun
from fedbench.report.analyses import NO_ANALYSES, Analyses, analyses_of
from fedbench.report.charts import MOST_LINES, charts
from fedbench.report.client_accuracies import PRINTED_COLUMNS, client_charts, clients_table
from fedbench.report.compare import Comparison
from fedbench.report.fairness import versions
from fedbench.report.methods import Method
from fedbench.report.result_tables import ABOUT, paired_table, reached_table, results_table, runs_table, settings_table
from fedbench.report.shown_metrics import PRINTED, chosen_columns, default_target
from fedbench.report.svg_chart import Chart
from fedbench.report.svg_heatmap import Heatmap
from fedbench.report.tasks import ranking_of
from fedbench.tables.rank_diagram import RankPicture, picture
from fedbench.tables.ranks import Ranking
from fedbench.tables.table import Table

MOST_PARTITIONS = 4
"""Pictures of a partition in one report, at most."""


@dataclass(frozen=True)
class Recipe:
    """The configuration and the commands that run a method again.

    Attributes:
        method: the method that is run again.
        file: the name under which the commands expect the configuration.
        yaml: the configuration, without seed, places, tracking and executor.
        commands: the commands, one a seed.
    """

    method: Method
    file: str
    yaml: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: one line.
        intro: what was compared, in sentences.
        comparison: the methods, and what must be known before believing a figure.
        baseline: the method that others are measured against.
        target: accuracy (0..1) of the table on what it took to reach it.
        results, differences, reached, settings, runs: tables; None where there is nothing to say.
        printed_results: `results` with as many columns as a printed page holds, unless others were asked for.
        chosen_columns: names of the columns that were asked for; (): none were.
        charts: accuracy against what was spent.
        chart_note: the meaning of lines and bands.
        partitions: pictures of the samples that each client holds.
        versions: the library versions that the results depend on, one line each.
        recipes: configuration and commands that run each method again.
        command: the command that made the report.
        analyses: what was looked into beside the rounds.
        ranking: the methods ranked over several tasks; None where there are none, or too few.
        rank_picture: the diagram of the ranking.
        clients: table of the accuracies of single clients; None where no method was scored on clients' rows.
        printed_clients: `clients` with as many columns as a printed page holds.
        client_charts: the sorted accuracies of the clients.
    """

    title: str
    intro: tuple[str, ...]
    comparison: Comparison
    baseline: Method
    target: float
    results: Table
    printed_results: Table
    chosen_columns: tuple[str, ...]
    differences: Table | None
    reached: Table
    settings: Table | None
    runs: Table
    charts: tuple[Chart, ...]
    chart_note: str
    partitions: tuple[Heatmap, ...]
    versions: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    command: str
    analyses: Analyses = NO_ANALYSES
    ranking: Ranking | None = None
    rank_picture: RankPicture | None = None
    clients: Table | None = None
    printed_clients: Table | None = None
    client_charts: tuple[Chart, ...] = ()

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


def make_report(
    comparison: Comparison,
    target: float | None = None,
    baseline: str | None = None,
    command: str = "fedbench report",
    columns: Sequence[str] = (),
) -> Report:
    """The report on a comparison.

    Args:
        target: accuracy (0..1) to be reached; None: 90 % of the worst method's best one.
        baseline: a method's label; None: FedAvg with full updates, else the first.
        command: the command that is named as having made it.
        columns: names of the main table's columns, of `COLUMNS`; (): those that some method has.

    Raises:
        ConfigError: no such baseline or column, or a target outside (0, 1].
    """
    if target is not None and not 0 < target <= 1:
        hint = f"; did you mean {target / 100:g}?" if 1 < target <= 100 else ""
        raise ConfigError(f"--target {target:g}: must be an accuracy above 0 and up to 1{hint}")
    methods, asked = comparison.methods, chosen_columns(columns)
    against = comparison.baseline(baseline)
    aim = default_target(methods) if target is None else target
    ranking, refusal = ranking_of(methods)
    origin = "The target is 90 % of the worst method's best accuracy." if target is None else "The target was given."
    return Report(
        title=_title(methods),
        intro=(*_intro(comparison, against), *filter(None, [refusal])),
        comparison=comparison,
        baseline=against,
        target=aim,
        results=results_table(methods, asked),
        printed_results=results_table(methods, asked or chosen_columns(PRINTED), gaps=bool(asked)),
        chosen_columns=tuple(columns),
        differences=paired_table(methods, against) if len(methods) > 1 else None,
        reached=reached_table(methods, aim, origin),
        settings=settings_table(methods),
        runs=runs_table(methods),
        charts=tuple(charts(methods, aim)),
        chart_note=_chart_note(methods, aim),
        partitions=tuple(_partitions(methods)),
        versions=tuple(
            f"{text} ({count} run{'s' if count > 1 else ''})"
            for text, count in Counter(map(versions, comparison.runs)).items()
        ),
        recipes=tuple(map(_recipe, methods)),
        command=command,
        analyses=analyses_of(run.directory for run in comparison.runs),
        ranking=ranking,
        rank_picture=None if ranking is None else picture(ranking),
        clients=clients_table(methods),
        printed_clients=clients_table(methods, PRINTED_COLUMNS),
        client_charts=tuple(client_charts(methods[:MOST_LINES])),
    )


def _title(methods: Sequence[Method]) -> str:
    data = dict.fromkeys(run.description.dataset_name for method in methods for run in method.runs)
    count = f"{len(methods)} methods" if len(methods) > 1 else methods[0].label
    return f"{count} on {' and '.join(data)}"


def _intro(comparison: Comparison, baseline: Method) -> list[str]:
    runs, methods = comparison.runs, comparison.methods
    seeds = sorted({run.seed for run in runs})
    several = "s" if len(seeds) > 1 else ""
    sentences = [
        f"{len(runs)} of {comparison.found} recorded runs count: {len(methods)} "
        f"method{'s' if len(methods) > 1 else ''} with seed{several} {', '.join(map(str, seeds))}.",
        f"Trained on: {'; '.join(dict.fromkeys(map(_setting, runs)))}.",
    ]
    if len(methods) > 1:
        sentences.append(f"Others are measured against {baseline.title}.")
    return sentences


def _setting(run: RecordedRun) -> str:
    data = run.config.get("data", {})
    clients = len(run.description.client_class_counts)
    model = run.config.get("model", {}).get("name", "?")
    parameters = run.summary.get("parameters")
    size = f" ({parameters:,} parameters in {run.summary.get('layer_groups')} layer groups)" if parameters else ""
    division = data.get("partition", {}).get("name", "?")
    return f"{run.description.dataset_name}, {clients} clients, {division} partition, {model}{size}"


def _chart_note(methods: Sequence[Method], target: float) -> str:
    several = any(len(method.runs) > 1 for method in methods)
    sentences = ["Lines: mean test accuracy over seeds; a letter stands at the end of each."]
    if several:
        sentences.append(
            "Bands: from the worst to the best seed. Where seeds spent different amounts, each keeps its last score "
            "until its next one, and a seed that ended earlier keeps its last one to the end."
        )
    sentences.append(f"Dotted: the target, {ABOUT.show(target)}.")
    if len(methods) > MOST_LINES:
        sentences.append(f"Only the first {MOST_LINES} of {len(methods)} methods are drawn.")
    return " ".join(sentences)


def _partitions(methods: Sequence[Method]) -> list[Heatmap]:
    """One picture for each way in which data was divided with the lowest seed."""
    seed = min(seed for method in methods for seed in method.seeds)
    divided: dict[str, list[tuple[str, RecordedRun]]] = {}
    for method in methods:
        for run in method.runs:
            if run.seed == seed and run.description.client_class_counts:
                divided.setdefault(run.partition_digest, []).append((method.letter, run))
    pictures = []
    for number, same in enumerate(list(divided.values())[:MOST_PARTITIONS], 1):
        run = same[0][1]
        described, division = run.description, run.config.get("data", {}).get("partition", {}).get("name", "?")
        whose = f", {', '.join(letter for letter, _ in same)}" if len(divided) > 1 else ""
        title = f"{described.dataset_name}, {division} partition, seed {seed}{whose}"
        pictures.append(Heatmap(f"partition-{number}", title, described.client_class_counts, described.class_names))
    return pictures


def _recipe(method: Method) -> Recipe:
    config = {key: value for key, value in portable(method.config).items() if key != "seed"}
    file = f"method-{method.letter.lower()}.yaml"
    root = " data.root=DIR" if method.config.get("data", {}).get("root") else ""
    commands = tuple(f"fedbench run {shlex.quote(file)} seed={run.seed}{root}{_replay(run)}" for run in method.runs)
    return Recipe(method, file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True), commands)


def _replay(run: RecordedRun) -> str:
    """The option that follows a recorded run again, where real time decided on the result; otherwise "".

    On the wall clock that is the order of arrivals; with a round deadline, who was dropped.
    """
    if run.summary.get("clock") == "wall":
        file = EVENTS
    elif run.config.get("participation", {}).get("round_deadline") is not None:
        file = CLIENTS
    else:
        return ""
    return f" --replay {shlex.quote(f'{run.source}/{file}')}"
