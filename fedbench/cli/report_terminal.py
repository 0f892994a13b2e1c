"""Prints a short form of a report on the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from fedbench.cli.table_terminal import print_table
from fedbench.cli.terminal import console, duration, in_seconds, results
from fedbench.records.headline import ACCURACY
from fedbench.report.content import Report
from fedbench.report.files import CHARTS
from fedbench.report.shown_metrics import BYTES, FLOPS, fitting
from fedbench.report.task_part import TaskPart
from fedbench.tables.numbers import Number
from fedbench.tables.seed_statistics import Spread

LOUD = {"warning": "yellow", "left out": "yellow", "note": None}


def print_report(report: Report, files: Sequence[Path]) -> None:
    """The main figures on stdout, the caveats on stderr, and where the rest is."""
    for caveat in report.comparison.caveats:
        _line(f"{caveat.severity}: {caveat.text}", LOUD[caveat.severity])
    for part in report.parts:
        if report.chosen_columns:
            print_table(part.results)
        else:
            _print_part(part)
    _print_files(files)


def _print_part(part: TaskPart) -> None:
    """The main figures of the methods of one task."""
    methods, headline = part.methods, part.headline
    traffic = [method.spread("total_bytes") for method in methods]
    work = [method.spread("client_flops") for method in methods]
    sent = fitting(BYTES, [spread.mean for spread in traffic])
    worked = fitting(FLOPS, [spread.mean for spread in work])
    words = "" if headline.headline == ACCURACY else f" {headline.words}"
    unit = f" {headline.unit}".rstrip()
    figures = [[method.spread(name) for method in methods] for name in headline.judged]
    numbers = [headline.number([value for spread in spreads for value in spread.values]) for spreads in figures]
    title = f"{part.name.replace('_', ' ')}:" if part.name else None
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.add_column("method", overflow="fold")
    scores = f"best{words}{unit}", f"final{words}{unit}"
    clock = [method.spread("virtual_seconds").mean for method in methods]
    on_clock = any(not math.isnan(seconds) for seconds in clock)
    times = ("clock", "wall") if on_clock else ("time",)
    for column in ("seeds", *scores, f"up + down {sent.unit}", f"work {worked.unit}", *times):
        table.add_column(column, justify="right", no_wrap=True)
    for place, (method, bytes_, flops) in enumerate(zip(methods, traffic, work, strict=True)):
        table.add_row(
            method.title,
            str(len(method.seeds)),
            *(_shown(spreads[place], number) for spreads, number in zip(figures, numbers, strict=True)),
            sent.bare(bytes_.mean),
            worked.bare(flops.mean),
            *(["-" if math.isnan(clock[place]) else in_seconds(clock[place])] if on_clock else []),
            duration(method.spread("wall_seconds").mean),
        )
    results.print(table, markup=False, highlight=False)


def _print_files(files: Sequence[Path]) -> None:
    """A line for each file, and one for all charts."""
    charts = [file for file in files if file.parent.name == CHARTS]
    for file in files:
        if file not in charts:
            results.print(f"{file.suffix.removeprefix('.'):<8}{file}", markup=False, highlight=False, soft_wrap=True)
    if charts:
        kinds = " and ".join(sorted({file.suffix.removeprefix(".").upper() for file in charts}, reverse=True))
        count = len({file.stem for file in charts})
        text = f"{'charts':<8}{charts[0].parent} ({count} as {kinds})"
        results.print(text, markup=False, highlight=False, soft_wrap=True)


def print_uploaded(sent: Sequence[Mapping[str, str]]) -> None:
    """Print which MLflow run each directory has become."""
    for one in sent:
        text = f"{one['directory']}: MLflow run {one['run_id']} in {one['experiment']}"
        results.print(text, markup=False, highlight=False, soft_wrap=True)


def _shown(spread: Spread, number: Number) -> str:
    return number.bare(spread.mean) + (f" ± {number.bare(spread.std)}" if spread.n > 1 else "")


def _line(text: str, style: str | None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
