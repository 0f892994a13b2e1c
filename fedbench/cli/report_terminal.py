"""Prints a short form of a report on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from fedbench.cli.table_terminal import print_table
from fedbench.cli.terminal import console, duration, results
from fedbench.report.content import Report
from fedbench.report.files import CHARTS
from fedbench.report.shown_metrics import BYTES, FLOPS, fitting
from fedbench.tables.numbers import PERCENT, Number
from fedbench.tables.seed_statistics import Spread

LOUD = {"warning": "yellow", "left out": "yellow", "note": None}


def print_report(report: Report, files: Sequence[Path]) -> None:
    """The main figures on stdout, the caveats on stderr, and where the rest is."""
    methods = report.comparison.methods
    for caveat in report.comparison.caveats:
        _line(f"{caveat.severity}: {caveat.text}", LOUD[caveat.severity])
    traffic = [method.spread("total_bytes") for method in methods]
    work = [method.spread("client_flops") for method in methods]
    sent = fitting(BYTES, [spread.mean for spread in traffic])
    worked = fitting(FLOPS, [spread.mean for spread in work])
    if report.chosen_columns:
        print_table(report.results)
        _print_files(files)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold")
    for column in ("seeds", "best %", "final %", f"up + down {sent.unit}", f"work {worked.unit}", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for method, bytes_, flops in zip(methods, traffic, work, strict=True):
        table.add_row(
            method.title,
            str(len(method.seeds)),
            *(_shown(method.spread(key), PERCENT) for key in ("best_accuracy", "final_accuracy")),
            sent.bare(bytes_.mean),
            worked.bare(flops.mean),
            duration(method.spread("wall_seconds").mean),
        )
    results.print(table, markup=False, highlight=False)
    _print_files(files)


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
