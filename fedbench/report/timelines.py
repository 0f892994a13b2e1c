"""Clients on the clock of recorded runs: who received, computed, sent and waited, drawn from the tables of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from fedbench.records.figure_style import DOTS_PER_INCH
from fedbench.records.reader import EVENTS, load_events, load_run, recorded_checksums
from fedbench.records.recorded_run import RecordedRun
from fedbench.records.timeline import timeline_figure
from fedbench.report.methods import Method

MOST_TIMELINES = 6
"""Pictures in one report, at most."""

HEADING = "Client by client, on the run's clock"

NOTE = (
    "One row for each client; at the right, what the client's time went into in the whole run. A virtual clock "
    "measures nothing: its times follow from bytes, FLOPs and the configuration's delays."
)


@dataclass(frozen=True)
class Timeline:
    """The picture of one run.

    Attributes:
        name: of its file, without the ending.
        title: one line.
        png: the picture.
    """

    name: str
    title: str
    png: bytes


@dataclass(frozen=True)
class Timelines:
    """The pictures of a report: one for each method whose runs have a clock, of its lowest seed.

    Attributes:
        runs: (title, run) of those that are drawn.
        clocks: methods whose runs have a clock.
    """

    runs: tuple[tuple[str, RecordedRun], ...]
    clocks: int

    @property
    def note(self) -> str:
        """What is seen, and which methods are left out."""
        left_out = f" The first {len(self.runs)} of {self.clocks} methods." if len(self.runs) < self.clocks else ""
        return f"{NOTE}{left_out}"

    @cached_property
    def shown(self) -> tuple[Timeline, ...]:
        """The pictures, drawn when they are first asked for.

        Raises:
            DataError: the tables of a run have changed since it was read.
        """
        drawn = ((title, _png(run)) for title, run in self.runs)
        return tuple(Timeline(timeline_name(number), title, png) for number, (title, png) in enumerate(drawn, 1) if png)


NO_TIMELINES = Timelines((), 0)


def timelines_of(methods: Sequence[Method]) -> Timelines:
    """The pictures of some methods."""
    on_clock = [
        (f"{method.title}, seed {run.seed}", run)
        for method in methods
        if (run := method.runs[0]).rounds["virtual_seconds"].null_count < run.rounds.num_rows
    ]
    return Timelines(tuple(on_clock[:MOST_TIMELINES]), len(on_clock))


def timeline_name(number: int) -> str:
    """The name of the file of a picture.

    Args:
        number: of the picture in the report, from 1.
    """
    return f"timeline-{number}"


def _png(run: RecordedRun) -> bytes:
    """The picture of a run; nothing where no client did any work."""
    _, rounds, clients, _ = load_run(run.directory)
    sums = recorded_checksums(run.directory)
    arrivals = load_events(run.directory / EVENTS, sums) if EVENTS in sums else None
    figure = timeline_figure(rounds, clients, run.description, arrivals)
    if figure is None:
        return b""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return content.getvalue()
