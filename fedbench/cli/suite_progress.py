"""What a person sees while a suite runs: one line a run, and where the run stands, on a terminal at any moment."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console

from fedbench.cli.terminal import duration
from fedbench.records.headline import ACCURACY, as_recorded, headline_of_summary, shown
from fedbench.records.metrics import headline_figures
from fedbench.records.observers import RunDescription
from fedbench.records.schema import ClientRecord, RoundRecord
from fedbench.suites.results import Outcome

SILENT_SECONDS = 60.0
"""In a log, where nothing can be overwritten, a long run is heard of so often."""


class SuiteProgress:
    """Shows where a suite stands, and one line for each run that has ended. A `SuiteListener`.

    Attributes:
        warnings: the warnings so far.
    """

    def __init__(self, screen: Console, runs: int) -> None:
        """Args:
        runs: the number of runs in the suite.
        """
        self._screen = screen
        self._runs = runs
        self._status = screen.status("") if screen.is_terminal else None
        self._head = ""
        self._score = ""
        self._rounds = 0
        self._headline = ACCURACY
        self._last_said = time.monotonic()
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status:
            self._status.stop()

    def begin(self, number: int, title: str) -> None:
        """Show that run `number` (from 1) begins."""
        self._head = f"{number:>{len(str(self._runs))}}/{self._runs}  {title}"
        self._score = ""
        self._show("starting")

    def end(self, outcome: Outcome) -> None:
        """Print the line of the run that has ended."""
        words = outcome.reason or outcome.status
        if outcome.finished:
            headline, seconds = headline_of_summary(outcome.summary), outcome.summary.get("wall_seconds")
            best = outcome.summary.get(headline_figures(headline)[0])
            score = f"no {headline.words}" if best is None else f"{headline.words} {shown(best, headline)} best"
            words = f"{score}  {'recorded before' if outcome.reused else duration(float(seconds or 0))}"
        elif outcome.reason:
            words = f"{outcome.status}: {outcome.reason}"
        self.say(f"{self._head}  {words}")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._last_said = time.monotonic()
        self._screen.print(line, markup=False, highlight=False, soft_wrap=True)

    def show_traceback(self, text: str) -> None:
        """Write a traceback to stderr."""
        sys.stderr.write(text)

    def warn(self, line: str) -> None:
        """Print a warning, which stays."""
        self.warnings.append(line)
        self._screen.print(f"warning: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def run_started(self, run: RunDescription) -> None:
        """Keep the number of rounds and the metric of the task, for the progress shown."""
        self._rounds, self._headline = run.rounds, run.headline

    def round_finished(self, record: RoundRecord, clients: Sequence[ClientRecord]) -> None:
        """Show the round."""
        if (score := record.score(self._headline)) is not None:
            self._score = f"{self._headline.words} {as_recorded(score, self._headline)}"
        self._show(f"round {record.round + 1}/{self._rounds}  {self._score}")

    def run_finished(self, summary: dict[str, Any]) -> None:
        """Show nothing: the line of the run is printed by `end`."""

    def _show(self, words: str) -> None:
        if self._status:
            self._status.update(f"{self._head}  {words}".replace("[", "\\["))
        elif time.monotonic() - self._last_said >= SILENT_SECONDS:
            self.say(f"{self._head}  {words}")
