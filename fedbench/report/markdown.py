"""A report as Markdown and as one JSON document."""

import math
from collections.abc import Mapping
from typing import Any

from fedbench.records.recorded_run import RecordedRun
from fedbench.report.analyses import Analyses, as_table, picture_name
from fedbench.report.client_accuracies import CHART_NOTE
from fedbench.report.content import Report
from fedbench.report.methods import Method
from fedbench.report.result_tables import JUDGED, comparisons, spent_until
from fedbench.report.shown_metrics import COLUMNS
from fedbench.report.tasks import baselines
from fedbench.tables import render
from fedbench.tables.render import escaped_markdown
from fedbench.tables.seed_statistics import Spread, paired


def markdown(report: Report) -> str:
    """The report, which shows the files of its charts."""
    parts = [f"# {escaped_markdown(report.title)}", escaped_markdown(" ".join(report.intro))]
    if report.comparison.caveats:
        lines = "\n".join(
            f"- **{caveat.severity}**: {escaped_markdown(caveat.text)}" for caveat in report.comparison.caveats
        )
        parts += ["## Read this first", lines]
    for table in (*report.tables, report.settings, report.runs):
        if table is report.reached and report.charts:
            pictures = [f"![{escaped_markdown(chart.title)}](charts/{chart.name}.svg)" for chart in report.charts]
            parts += ["## Accuracy against what was spent", escaped_markdown(report.chart_note), *pictures]
        if table is not None:
            parts += [f"## {escaped_markdown(table.title)}", _without_title(render.markdown(table))]
        if table is report.clients and report.client_charts:
            drawn = [f"![{escaped_markdown(chart.title)}](charts/{chart.name}.svg)" for chart in report.client_charts]
            parts += [escaped_markdown(CHART_NOTE), *drawn]
        if table is report.ranks and report.rank_picture is not None:
            shown = report.rank_picture
            image = [f"![{escaped_markdown(shown.title)}](charts/{shown.name}.svg)"] if shown.files else []
            parts += [*image, escaped_markdown(shown.note)]
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
    """The report's figures as plain values for JSON, in the units of `summary.json`; null for what is not a number."""
    comparison = report.comparison
    return {
        "title": report.title,
        "runs_found": comparison.found,
        "runs_counted": len(comparison.runs),
        "problems": [{"severity": caveat.severity, "text": caveat.text} for caveat in comparison.caveats],
        "baseline": report.baseline.label,
        "target": report.target,
        "methods": [_method(report, method) for method in comparison.methods],
        "ranks": None if report.ranking is None else report.ranking.to_mapping(),
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


def _method(report: Report, method: Method) -> dict[str, Any]:
    methods = report.comparison.methods
    against = baselines(methods, report.baseline)[method.letter]
    judgements = comparisons(methods, report.baseline)
    concluded = {
        name: judgement
        for (letter, name), (_, judgement) in judgements.items()
        if letter == method.letter and judgement is not None
    }
    return {
        "label": method.label,
        "letter": method.letter,
        "seeds": list(method.seeds),
        "runs": [_run(run, report.target) for run in method.runs],
        **{name: _spread(method.spread(name)) for name in COLUMNS},
        "measured_against": None if against is None or against is method else against.label,
        "against_baseline": None
        if against is None or against is method
        else {
            key: _paired(method, against, key) | (concluded[key].to_mapping() if key in concluded else {})
            for key in (*JUDGED, "uplink_bytes", "downlink_bytes", "client_flops")
        },
    }


def _run(run: RecordedRun, target: float) -> dict[str, Any]:
    spent = spent_until(run, target)
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
