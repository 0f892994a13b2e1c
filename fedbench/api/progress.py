"""What is told of a run, a suite or a study as it goes: nothing, the lines of the terminal, or rows of values."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedbench.errors import ConfigError
from fedbench.records.observers import Observer, RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord

Row = dict[str, Any]

RowProgress = bool | Callable[[Row], object] | None
"""False or None: silence. True: the lines that the command line shows, on stderr. A function: called with each row."""

RunProgress = RowProgress | Observer
"""The same for a single run, whose rows are its rounds; or an observer, which is told of its beginning and end, too."""

Announce = Callable[[str], None]


class RowObserver:
    """Hands each round to a function, as one row of `Result.frame()` (an `Observer`)."""

    def __init__(self, take: Callable[[Row], object]) -> None:
        self._take = take

    def run_started(self, run: RunDescription) -> None:
        """Nothing to hand on yet."""

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Hand the round on, as the table of rounds has it."""
        self._take({name: list(value) if isinstance(value, tuple) else value for name, value in vars(record).items()})

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Nothing more to hand on."""


@contextmanager
def run_progress(progress: RunProgress) -> Iterator[tuple[list[Observer], Announce | None]]:
    """Context in which a run is shown as asked for.

    Yields:
        The run's observers, and what is told in one line that something slow begins; None: nobody.

    Raises:
        ConfigError: `progress` is none of what it may be.
    """
    if progress is True:
        from fedbench.cli.terminal import Progress, console

        with Progress(console) as lines:
            yield [lines], lines.announce
    elif progress is None or progress is False:
        yield [], None
    elif isinstance(progress, Observer) and not isinstance(progress, type):
        yield [progress], None
    else:
        yield [RowObserver(row_function(progress))], None


def row_function(progress: object) -> Callable[[Row], object]:
    """`progress` as a function of a row.

    Raises:
        ConfigError: it is no function.
    """
    if not callable(progress) or isinstance(progress, type):
        raise ConfigError(
            f"progress={progress!r}: must be True, False, None or a function that takes one row; of a single run also "
            "an observer with run_started, round_finished and run_finished"
        )
    return progress


def warn(lines: Sequence[str], progress: object) -> None:
    """Show warnings where the terminal's lines are asked for; else the result alone has them."""
    if progress is True:
        from fedbench.cli.terminal import print_warnings

        print_warnings(lines)
