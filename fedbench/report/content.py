"""What a report says, whatever it is written as."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from fedbench.config.identity import portable
from fedbench.errors import ConfigError
from fedbench.records.reader import CLIENTS, EVENTS
from fedbench.records.recorded_run import RecordedRun
from fedbench.report.analyses import NO_ANALYSES, Analyses, analyses_of
from fedbench.report.compare import Comparison, plain_fedavg
from fedbench.report.fairness import versions
from fedbench.report.methods import Method
from fedbench.report.result_tables import runs_table, settings_table
from fedbench.report.shown_metrics import own_columns
from fedbench.report.svg_heatmap import Heatmap
from fedbench.report.task_part import TaskPart, task_part
from fedbench.report.tasks import names_across
from fedbench.report.timelines import NO_TIMELINES, Timelines, timelines_of
from fedbench.tables.table import Table
from fedbench.tasks.kinds import TaskName

DOWN: dict[TaskName, str] = {"classification": "classes", "regression": "bins of the target"}
"""What is counted at each client, by task; of other tasks all rows together."""

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
        parts: what is said of the methods of each task, which are not compared with those of another.
        settings, runs: tables; None where there is nothing to say.
        chosen_columns: names of the columns that were asked for; (): none were.
        partitions: pictures of the samples that each client holds.
        versions: the library versions that the results depend on, one line each.
        recipes: configuration and commands that run each method again.
        command: the command that made the report.
        analyses: what was looked into beside the rounds.
        timelines: pictures of clients on the clock of the runs.
    """

    title: str
    intro: tuple[str, ...]
    comparison: Comparison
    parts: tuple[TaskPart, ...]
    chosen_columns: tuple[str, ...]
    settings: Table | None
    runs: Table
    partitions: tuple[Heatmap, ...]
    versions: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    command: str
    analyses: Analyses = NO_ANALYSES
    timelines: Timelines = NO_TIMELINES

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of figures, which `table.csv` holds."""
        return tuple(table for part in self.parts for table in part.tables)

    @property
    def printed_tables(self) -> tuple[Table, ...]:
        """The tables of figures, which `table.tex` holds."""
        return tuple(table for part in self.parts for table in part.printed_tables)


def make_report(
    comparison: Comparison,
    target: float | None = None,
    baseline: str | None = None,
    command: str = "fedbench report",
    columns: Sequence[str] = (),
) -> Report:
    """The report on a comparison.

    Args:
        target: value to be reached of the metric by which the task is judged, in its recorded unit (an accuracy is a
            fraction); None: one that is a tenth worse than the worst method's best one.
        baseline: a method's label; None: FedAvg with full updates, else the first. Of further tasks the same method is
            the baseline there, where it was run on them.
        command: the command that is named as having made it.
        columns: names of the main table's columns, of `COLUMNS` or own:NAME; (): those that some method has.

    Raises:
        ConfigError: no such baseline or column, or a target that the metric cannot have.
    """
    methods = comparison.methods
    by_task: dict[TaskName, list[Method]] = {}
    for method in methods:
        by_task.setdefault(method.task, []).append(method)
    if target is not None:
        _check_target(target, by_task)
    chosen = None if baseline is None else comparison.baseline(baseline)
    own = own_columns(methods)
    parts = tuple(
        task_part(same, _baseline(same, methods, chosen), target, columns, task if len(by_task) > 1 else "", own)
        for task, same in by_task.items()
    )
    return Report(
        title=_title(methods),
        intro=(*_intro(comparison, parts), *(part.rank_refusal for part in parts if part.rank_refusal)),
        comparison=comparison,
        parts=parts,
        chosen_columns=tuple(columns),
        settings=settings_table(methods),
        runs=runs_table(methods),
        partitions=tuple(_partitions(methods)),
        versions=tuple(
            f"{text} ({count} run{'s' if count > 1 else ''})"
            for text, count in Counter(map(versions, comparison.runs)).items()
        ),
        recipes=tuple(map(_recipe, methods)),
        command=command,
        analyses=analyses_of(run.directory for run in comparison.runs),
        timelines=timelines_of(methods),
    )


def _check_target(target: float, by_task: Mapping[TaskName, Sequence[Method]]) -> None:
    """Raises:
    ConfigError: no value of the metric by which the task is judged, or there are several tasks.
    """
    metrics = {task: same[0].headline for task, same in by_task.items()}
    if len(metrics) > 1:
        tasks = "; ".join(f"{task} by {shown.words}" for task, shown in metrics.items())
        raise ConfigError(f"--target {target:g}: these runs are judged by several metrics ({tasks}); name those of one")
    (shown,) = metrics.values()
    article = "an" if shown.words[0] in "aeiouM" else "a"
    if not shown.headline.percent:
        if not 0 < target < math.inf:
            raise ConfigError(f"--target {target:g}: must be {article} {shown.words} above 0")
    elif not 0 < target <= 1:
        hint = f"; did you mean {target / 100:g}?" if 1 < target <= 100 else ""
        article = "an" if shown.words[0] == "a" else "a"
        raise ConfigError(f"--target {target:g}: must be {article} {shown.words} above 0 and up to 1{hint}")


def _baseline(of_task: Sequence[Method], methods: Sequence[Method], chosen: Method | None) -> Method:
    """The method that those of one task are measured against: the chosen one, or what it is called on this task."""
    if chosen is None:
        return plain_fedavg(of_task)
    if chosen in of_task:
        return chosen
    called = names_across(methods)
    same = [method for method in of_task if called[method.letter] == called[chosen.letter]]
    return same[0] if same else plain_fedavg(of_task)


def _title(methods: Sequence[Method]) -> str:
    data = dict.fromkeys(run.description.dataset_name for method in methods for run in method.runs)
    count = f"{len(methods)} methods" if len(methods) > 1 else methods[0].label
    return f"{count} on {' and '.join(data)}"


def _intro(comparison: Comparison, parts: Sequence[TaskPart]) -> list[str]:
    runs, methods = comparison.runs, comparison.methods
    seeds = sorted({run.seed for run in runs})
    several = "s" if len(seeds) > 1 else ""
    sentences = [
        f"{len(runs)} of {comparison.found} recorded runs count: {len(methods)} "
        f"method{'s' if len(methods) > 1 else ''} with seed{several} {', '.join(map(str, seeds))}.",
        f"Trained on: {'; '.join(dict.fromkeys(map(_setting, runs)))}.",
    ]
    if len(parts) > 1:
        tasks = "; ".join(
            f"{part.name.replace('_', ' ')} by {part.headline.words}, measured against {part.baseline.title}"
            for part in parts
        )
        sentences.append(f"Each task has tables of its own, judged by its own metric: {tasks}.")
    elif len(methods) > 1:
        sentences.append(f"Others are measured against {parts[0].baseline.title}.")
    return sentences


def _setting(run: RecordedRun) -> str:
    data = run.config.get("data", {})
    clients = len(run.description.client_class_counts)
    model = run.config.get("model", {}).get("name", "?")
    parameters = run.summary.get("parameters")
    size = f" ({parameters:,} parameters in {run.summary.get('layer_groups')} layer groups)" if parameters else ""
    division = data.get("partition", {}).get("name", "?")
    task = run.task.replace("_", " ")
    return f"{run.description.dataset_name} ({task}), {clients} clients, {division} partition, {model}{size}"


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
        names, down = described.class_names, DOWN.get(described.task, "rows")
        pictures.append(Heatmap(f"partition-{number}", title, described.client_class_counts, names, down))
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
