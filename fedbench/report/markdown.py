"""A report as Markdown and as one JSON document."""

import math
from collections.abc import Mapping
from typing import Any

from fedbench.records.recorded_run import RecordedRun
from fedbench.report.analyses import Analyses, as_table, picture_name
from fedbench.report.client_accuracies import CHART_NOTE
from fedbench.report.content import Report
from fedbench.report.methods import Method
from fedbench.report.result_tables import comparisons, spent_until
from fedbench.report.shown_metrics import COLUMNS, own_directions
from fedbench.report.task_part import TaskPart
from fedbench.report.tasks import baselines
from fedbench.report.timelines import HEADING as TIMELINES
from fedbench.tables import render
from fedbench.tables.render import escaped_markdown
from fedbench.tables.seed_statistics import Spread, paired
from fedbench.tables.table import Table


def markdown(report: Report) -> str:
    """The report, which shows the files of its charts."""
    parts = [f"# {escaped_markdown(report.title)}", escaped_markdown(" ".join(report.intro))]
    if report.comparison.caveats:
        lines = "\n".join(
            f"- **{caveat.severity}**: {escaped_markdown(caveat.text)}" for caveat in report.comparison.caveats
        )
        parts += ["## Read this first", lines]
    for part in report.parts:
        parts += _of_task(part)
    for table in (report.settings, report.runs):
        if table is not None:
            parts += _section(table)
    if report.timelines.shown:
        drawn = report.timelines.shown
        parts += [f"## {TIMELINES}", escaped_markdown(report.timelines.note)]
        parts += [f"![{escaped_markdown(shown.title)}](charts/{shown.name}.png)" for shown in drawn]
    parts += _analyses(report.analyses)
    parts += ["## To reproduce it", "\n".join(f"- {escaped_markdown(line)}" for line in report.versions)]
    for recipe in report.recipes:
        parts += [
            f"### {escaped_markdown(recipe.method.title)}",
            "```sh\n" + "\n".join(recipe.commands) + "\n```",
            f"<details><summary>{recipe.file}</summary>\n\n```yaml\n{recipe.yaml}```\n\n</details>",
        ]
    parts.append(f"This report: `{report.command}`")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _of_task(part: TaskPart) -> list[str]:
    """The tables of one task, with their pictures."""
    parts: list[str] = []
    for table in part.tables:
        if table is part.reached:
            parts += _charts(part)
        parts += _section(table)
        if table is part.clients and part.client_charts:
            drawn = [f"![{escaped_markdown(chart.title)}](charts/{chart.name}.svg)" for chart in part.client_charts]
            parts += [escaped_markdown(CHART_NOTE), *drawn]
        if table is part.ranks and part.rank_picture is not None:
            shown = part.rank_picture
            image = [f"![{escaped_markdown(shown.title)}](charts/{shown.name}.svg)"] if shown.files else []
            parts += [*image, escaped_markdown(shown.note)]
    return parts if part.reached is not None else parts + _charts(part)


def _charts(part: TaskPart) -> list[str]:
    if not part.charts:
        return []
    pictures = [f"![{escaped_markdown(chart.title)}](charts/{chart.name}.svg)" for chart in part.charts]
    heading = f"{part.headline.title} against what was spent{part.suffix}"
    return [f"## {escaped_markdown(heading)}", escaped_markdown(part.chart_note), *pictures]


def _section(table: Table) -> list[str]:
    return [f"## {escaped_markdown(table.title)}", _without_title(render.markdown(table))]


def _analyses(analyses: Analyses) -> list[str]:
    """The analyses of the runs: what was done, tables, and the files of the pictures."""
    if not analyses.shown and not analyses.faults:
        return []
    parts = ["## Why: analyses of these runs"]
    parts += [f"- **left out**: {escaped_markdown(fault)}" for fault in analyses.faults]
    for number, analysis in enumerate(analyses.shown, 1):
        parts += [f"### {escaped_markdown(analysis.title)}", escaped_markdown(" ".join(analysis.intro))]
        parts += [render.markdown(as_table(table)) for table in analysis.tables]
        for picture in analysis.pictures:
            parts += [
                f"![{escaped_markdown(picture.title)}](charts/{picture_name(number, picture)})",
                escaped_markdown(picture.caption),
            ]
    return parts


def document(report: Report) -> dict[str, Any]:
    """The report's figures as plain values for JSON, in the units of `summary.json`; null for what is not a number.

    `tasks` has what concerns one task; baseline, target and ranks beside it are those of the only one, else null.
    """
    comparison = report.comparison
    only = report.parts[0] if len(report.parts) == 1 else None
    return {
        "title": report.title,
        "runs_found": comparison.found,
        "runs_counted": len(comparison.runs),
        "problems": [{"severity": caveat.severity, "text": caveat.text} for caveat in comparison.caveats],
        "baseline": only.baseline.label if only else None,
        "target": only.target if only else None,
        "methods": [
            _method(part, method) for method in comparison.methods for part in report.parts if method in part.methods
        ],
        "ranks": None if only is None or only.ranking is None else only.ranking.to_mapping(),
        "tasks": [_task(part) for part in report.parts],
        "analyses": [
            {
                "kind": analysis.kind,
                "title": analysis.title,
                "metrics": analysis.metrics,
                "folder": str(analysis.folder),
            }
            for analysis in report.analyses.shown
        ],
    }


def _task(part: TaskPart) -> dict[str, Any]:
    return {
        "task": part.methods[0].task,
        "metric": part.headline.headline.name,
        "higher_is_better": part.headline.headline.higher_is_better,
        "own_metrics_better": own_directions(part.methods),
        "methods": [method.letter for method in part.methods],
        "baseline": part.baseline.label,
        "target": part.target,
        "ranks": None if part.ranking is None else part.ranking.to_mapping(),
    }


def _method(part: TaskPart, method: Method) -> dict[str, Any]:
    against = baselines(part.methods, part.baseline)[method.letter]
    judgements = comparisons(part.methods, part.baseline)
    concluded = {
        name: judgement
        for (letter, name), (_, judgement) in judgements.items()
        if letter == method.letter and judgement is not None
    }
    return {
        "label": method.label,
        "task": method.task,
        "letter": method.letter,
        "seeds": list(method.seeds),
        "runs": [_run(run, part.target) for run in method.runs],
        **{name: _spread(method.spread(name)) for name in (*COLUMNS, *own_directions(part.methods))},
        "measured_against": None if against is None or against is method else against.label,
        "against_baseline": None
        if against is None or against is method
        else {
            key: _paired(method, against, key) | (concluded[key].to_mapping() if key in concluded else {})
            for key in (*method.headline.judged, "uplink_bytes", "downlink_bytes", "client_flops")
        },
    }


def _run(run: RecordedRun, target: float | None) -> dict[str, Any]:
    spent = None if target is None else spent_until(run, target)
    return {
        "source": run.source,
        "seed": run.seed,
        "config_hash": run.digest,
        "model_sha256": run.model_sha256 or None,
        "until_target": None if spent is None else _until_target(spent),
    }


def _until_target(spent: Mapping[str, float]) -> dict[str, float | None]:
    return {
        "round": int(spent["rounds"]),
        "bytes": spent["total_bytes"],
        "flops": spent["client_flops"],
        "seconds": spent["wall_seconds"],
        "virtual_seconds": spent.get("virtual_seconds"),
        "joules": spent.get("joules"),
    }


def _spread(spread: Spread) -> dict[str, Any] | None:
    if not spread.n:
        return None
    return {"n": spread.n, "mean": _number(spread.mean), "std": _number(spread.std), "values": list(spread.values)}


def _paired(method: Method, against: Method, key: str) -> dict[str, Any]:
    pairs = paired(method.summaries(key), against.summaries(key))
    return {
        "seeds": list(pairs.seeds),
        "mean": _number(pairs.difference.mean),
        "standard_error": _number(pairs.difference.standard_error),
        "interval": None if pairs.difference.interval is None else list(pairs.difference.interval),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _without_title(table: str) -> str:
    """A table without its first line, the title, which stands in the heading above."""
    return table.split("\n", 1)[1]
