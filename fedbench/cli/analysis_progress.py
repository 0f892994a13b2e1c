"""What a person sees while an analysis goes on: a bar with the time left, or plain lines without a terminal."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from fedbench.cli.terminal import duration

SECONDS_BETWEEN_LINES = 10.0
"""Plain lines come at most this often."""


class AnalysisProgress:
    """A `fedbench.analysis.results.Progress` on a terminal, or as lines."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._bar: Bar | None = None
        self._began = time.monotonic()
        self._first: int | None = None
        self._said_at = self._began

    def __enter__(self) -> Self:
        if self._screen.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=self._screen,
                transient=True,
            )
            self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show what is done next, and the time left once there is something to go by."""
        if self._first is None or done < self._first:
            self._first, self._began = done, time.monotonic()
        line = "  ".join(part for part in (text, self._time_left(done, total)) if part)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, description=line)
        elif time.monotonic() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            self._screen.print(f"{done}/{total}  {line}", markup=False, highlight=False, soft_wrap=True)

    def _time_left(self, done: int, total: int) -> str:
        steps = done - (self._first or 0)
        if steps <= 0 or done >= total:
            return ""
        return f"{duration((time.monotonic() - self._began) / steps * (total - done))} left"
