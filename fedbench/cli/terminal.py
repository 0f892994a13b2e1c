"""What a person sees in the terminal: progress on stderr, results on stdout."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from fedbench.records.headline import ACCURACY, as_recorded, headline_of_summary, shown
from fedbench.records.metrics import headline_figures
from fedbench.records.observers import RunDescription
from fedbench.records.schema import DROPPED, ClientRecord, RoundRecord
from fedbench.records.trained_groups import in_words, is_full

if TYPE_CHECKING:
    from fedbench.experiment.estimate import Estimate
    from fedbench.experiment.result import Result
    from fedbench.tasks.kinds import Headline

console = Console(stderr=True)
results = Console(width=None if sys.stdout.isatty() else 120)


WIDEST_TABLE = 4

MUCH_WORK = 100.0
"""10^12 FLOP of clients from which a run says beforehand what it will need."""

FEW = 0.1
"""Part of a unit below which a smaller one is shown."""

FLOPS = {"TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6}
"""Units from large to small."""

WIDE = 110
"""Columns from which a bar has room for an asynchronous run's clock and staleness."""


class Progress:
    """A bar with round, score, MB and time left; plain lines where stderr is no terminal (an `Observer`)."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._bar: Bar | None = None
        self._status = screen.status("starting: data, model, actors") if screen.is_terminal else None
        self._rounds = 0
        self._group_names: tuple[str, ...] = ()
        self._bytes = 0
        self._headline, self._score = ACCURACY, ""
        self._began = 0.0
        self._first: int | None = None

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status:
            self._status.stop()
        if self._bar:
            self._bar.stop()

    def announce(self, beginning: str) -> None:
        """Say what is being started, where the first round may be many seconds away."""
        if self._status:
            self._status.update(escape(beginning))
        else:
            self._say(beginning)

    def run_started(self, run: RunDescription) -> None:
        """Print what runs."""
        self._rounds, self._bytes, self._group_names = run.rounds, run.sent_bytes, run.group_names
        self._headline = run.headline
        if self._status:
            self._status.stop()
        self._say(f"{run.title}: {run.rounds} round{'s' if run.rounds > 1 else ''}, {run.directory}")
        if (run.client_tflop or 0) >= MUCH_WORK:
            self._say(f"the clients' work will be about {run.client_tflop:,.0f} TFLOP in all (see: fedbench cost)")
        if run.kept_bytes:
            self._say(f"models and messages kept for later analysis will take {megabytes(run.kept_bytes)}")
        if self._screen.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=self._screen,
                transient=True,
            )
            self._bar.add_task("round", total=run.rounds)
            self._bar.start()

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Show the round."""
        self._bytes += record.uplink_bytes + record.downlink_bytes
        on_test, on_validation = record.score(self._headline), record.score(self._headline, "validation")
        if on_test is not None:
            self._score = f"{self._headline.words} {as_recorded(on_test, self._headline)}"
        if on_validation is not None:
            self._score += f"  validation {as_recorded(on_validation, self._headline)}"
        done = record.round + 1
        left = self._time_left(done)
        loss, sent = f"loss {record.train_loss:.4f}", f"{self._bytes / 1e6:.2f} MB"
        clock = "" if self._bar and self._screen.width < WIDE else _clock(record)
        trained = f"{_what(record, self._group_names):<11}"
        text = "  ".join(part for part in (trained, self._score, loss, sent, clock, left) if part)
        if record.rejected_clients:
            rejected = [client.client for client in clients if client.status == "rejected"]
            why = "not finite, too large or of the wrong shape"
            self._say(f"round {done}/{self._rounds}: rejected updates ({why}) of clients {rejected}")
        if record.dropped_clients:
            dropped = [client.client for client in clients if client.status == DROPPED]
            self._say(f"round {done}/{self._rounds}: clients {dropped} were not done in time and are left out")
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text)
        else:
            self._say(f"round {done}/{self._rounds}  {text}")

    def _say(self, line: str) -> None:
        self._screen.print(line, markup=False, highlight=False, soft_wrap=True)

    def _time_left(self, done: int) -> str:
        """Estimate the time left from the second round on: the first one also starts kernels and libraries."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
            return ""
        return f"{duration((now - self._began) / (done - self._first) * (self._rounds - done))} left"

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Show nothing more: the summary follows."""


def _what(record: RoundRecord, group_names: Sequence[str]) -> str:
    """Name what a round trained: layer groups by their names, or how many of them."""
    group = "" if is_full(record) else in_words(record, group_names)
    if record.phase != "async":
        return group or "full update"
    arrivals = f"{record.clients:,} arrival{'' if record.clients == 1 else 's'}"
    return f"{arrivals}  {group}" if group else arrivals


def _clock(record: RoundRecord) -> str:
    """How far the virtual clock is, and how stale an asynchronous round's updates were; "" where there is no clock."""
    clock = "" if record.virtual_seconds is None else f"t={in_seconds(record.virtual_seconds)}"
    staleness = "" if record.staleness_mean is None else f"staleness {record.staleness_mean:.1f}"
    return "  ".join(part for part in (clock, staleness) if part)


def in_seconds(seconds: float) -> str:
    """A time of the virtual clock, with three digits where it is short.

    >>> in_seconds(1234.56), in_seconds(0.012345)
    ('1,234.6 s', '0.0123 s')
    """
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds:.3g} s"


def duration(seconds: float) -> str:
    """For a person.

    >>> duration(75), duration(4000)
    ('1:15', '1:06:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def megabytes(count: float) -> str:
    """Bytes in MB (10^6).

    >>> megabytes(1234567)
    '1.23 MB'
    """
    return f"{count / 1e6:,.2f} MB"


def gigaflop(count: float) -> str:
    """Write FLOPs in units of 10^9, and few of them in units of 10^6.

    >>> gigaflop(1.234e11), gigaflop(4.5e6)
    ('123.40 GFLOP', '4.50 MFLOP')
    """
    return f"{count / 1e6:,.2f} MFLOP" if 0 < count < FEW * 1e9 else f"{count / 1e9:,.2f} GFLOP"


def fitting_unit(count: float, units: Mapping[str, float]) -> tuple[str, float]:
    """The first of some units, from large to small, of which a count is no small part, and its size; or the last one.

    >>> fitting_unit(2.5e7, {"TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6})
    ('MFLOP', 1000000.0)
    """
    first, *smaller = units.items()
    if not count:
        return first
    return next(((unit, size) for unit, size in (first, *smaller) if count >= FEW * size), [first, *smaller][-1])


def in_flops(count: float) -> str:
    """Write FLOPs in TFLOP, and few of them in a smaller unit."""
    unit, size = fitting_unit(count, FLOPS)
    return f"{count / size:,.2f} {unit}"


def print_warnings(warnings: Sequence[str]) -> None:
    """Print warnings to stderr, one a line."""
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_summary(result: "Result") -> None:
    """Print the closing summary of a run."""
    summary, full = result.summary, result.summary["full_updates"]
    rows: list[tuple[str, str]] = []
    headline = headline_of_summary(summary)
    rows.append((headline.words, _scores(summary, headline)))
    rows.append(("sent up / down", f"{megabytes(summary['uplink_bytes'])} / {megabytes(summary['downlink_bytes'])}"))
    rows.append(("client work", gigaflop(summary["client_flops"])))
    all_full = f"{megabytes(full['uplink_bytes'])} / {megabytes(full['downlink_bytes'])}"
    rows.append(("as full updates", f"{all_full}, {gigaflop(full['client_flops'])}"))
    if full["client_flops"] and summary["uplink_bytes"] < full["uplink_bytes"]:
        sent, all_sent = (values["uplink_bytes"] + values["downlink_bytes"] for values in (summary, full))
        work = summary["client_flops"] / full["client_flops"]
        rows.append(("saved", f"{1 - sent / all_sent:.0%} of the bytes, {1 - work:.0%} of the FLOPs"))
    rows.append(("time", f"{duration(summary['wall_seconds'])}, {summary['rounds']} rounds ({summary['status']})"))
    if "clock" not in summary and summary.get("virtual_seconds") is not None:
        rows.append(("virtual time", in_seconds(summary["virtual_seconds"])))
    if summary.get("joules") is not None:
        rows.append(("energy", f"{summary['joules']:,.4g} J, all clients"))
    if "clock" in summary:
        counts = f"{summary['arrivals']:,} arrivals, {summary['lost_updates']:,} lost"
        rows.append(("clock", f"{summary['clock']} {in_seconds(summary['virtual_seconds'])}, {counts}"))
        if summary["staleness_mean"] is not None:
            rows.append(("staleness", f"{summary['staleness_mean']:.1f} mean, {summary['staleness_max']:,} max"))
    if own_code := summary.get("own_code"):
        rows.append(("own code", ", ".join(f"{part} {content}" for part, content in own_code.items())))
    rows.append(("files", str(result.directory)))
    if result.ui_command:
        rows.append(("browse", result.ui_command))
    for name, value in rows:
        results.print(f"{name:<17}{value}", markup=False, highlight=False, soft_wrap=True)


def _scores(summary: Mapping[str, Any], headline: "Headline") -> str:
    """What a summary has of the task's metric in words, with how the best round was chosen."""
    figures = (summary.get(name) for name in headline_figures(headline))
    best, final, validation, _ = (shown(value, headline) for value in figures)
    place = summary["best_round"]
    if place is None:
        return "not evaluated"
    if summary["chosen_on"] == "validation":
        return f"{best} in round {place}, the best on validation ({validation}), {final} final"
    return f"{best} best (round {place}, chosen on the test split), {final} final"


def print_cost(estimate: "Estimate") -> None:
    """Print what a run will cost."""
    results.print(estimate.title, markup=False, highlight=False, soft_wrap=True)
    if estimate.remark:
        results.print(estimate.remark, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), title="one client at a time", title_justify="left")
    for column in ("update", "parameters", "up", "work", "of full", "peak memory (estimate)", "rounds"):
        leads = column == "update"
        table.add_column(column, justify="left" if leads else "right", overflow="fold", no_wrap=not leads)
    for row in estimate.rounds_by_kind:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            megabytes(row.uplink_bytes),
            gigaflop(row.flops),
            f"{row.share_of_full:.1%}",
            megabytes(row.peak_bytes),
            str(row.rounds),
        )
    results.print(table)
    table = Table(box=None, padding=(0, 2, 0, 0), title="\nall clients, all rounds", title_justify="left")
    for column in ("", "this run", "as full updates", "saved"):
        table.add_column(column, justify="right" if column else "left")
    here, full = estimate.total, estimate.full_updates
    of_paper = {unit: size / 1e12 for unit, size in FLOPS.items()}
    for name, part, whole, units in (
        ("sent up", here.uplink_bytes, full.uplink_bytes, {"MB": 1e6}),
        ("sent down", here.downlink_bytes, full.downlink_bytes, {"MB": 1e6}),
        ("client work", here.client_flops, full.client_flops, FLOPS),
        ("paper's Comm.", here.paper_comm_gb, full.paper_comm_gb, {"GB": 1.0, "MB": 1e-3}),
        ("paper's Comp. (one client)", here.paper_comp_tflop, full.paper_comp_tflop, of_paper),
    ):
        if part is None or whole is None:
            table.add_row(name, *("-",) * 3)
            continue
        unit, scale = fitting_unit(min(part, whole) or max(part, whole), units)
        saved = f"{round(1 - part / whole, 4) + 0.0:.1%}" if whole else "-"  # no minus sign before a zero
        table.add_row(name, f"{part / scale:,.3f} {unit}", f"{whole / scale:,.3f} {unit}", saved)
    results.print(table)
    if (kept := estimate.kept).models:
        what = f"{kept.models} global models and {kept.messages} messages"
        results.print(f"\nkept for later analysis: {what}, {megabytes(kept.nbytes)}", markup=False, highlight=False)
    for cost in estimate.measures:
        work = f"{gigaflop(cost.flops)} ({cost.share_of_work:.2%} of the client work)"
        table_size = f"a table of at most {megabytes(cost.table_bytes)}"
        memory = f", {megabytes(cost.server_bytes)} on the server" if cost.server_bytes else ""
        time = f"; {cost.time}" if cost.time else ""
        text = f"\n{cost.key}: {work}, {table_size}{memory}{time}"
        results.print(text, markup=False, highlight=False, soft_wrap=True)
    if estimate.virtual_seconds is not None:
        energy = "" if estimate.joules is None else f", {estimate.joules:,.4g} J of all clients"
        clock = f"\non the run's clock: {in_seconds(estimate.virtual_seconds)}{energy}"
        if full.virtual_seconds is not None:
            joules = "" if full.joules is None else f", {full.joules:,.4g} J"
            clock += f"; as full updates {in_seconds(full.virtual_seconds)}{joules}"
        results.print(clock, markup=False, highlight=False, soft_wrap=True)


def print_listing(rows: Sequence[dict[str, str]]) -> None:
    """Names, what they are, and their parameters; with more to say, one paragraph each."""
    if len(rows[0]) > WIDEST_TABLE:
        for row in rows:
            name, summary, *_ = row.values()
            results.print(f"{name}: {summary}", markup=False, highlight=False)
            for key, value in list(row.items())[2:]:
                if value:
                    results.print(f"    {key}: {value}", markup=False, highlight=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*row.values())
    results.print(table, markup=False, highlight=False)
