"""The interface of what follows a suite as it goes."""

from typing import Protocol

from fedbench.records.observers import Observer
from fedbench.suites.results import Outcome


class SuiteListener(Observer, Protocol):
    """An observer of each run in turn, which is told where the suite stands, too."""

    def begin(self, number: int, title: str) -> None:
        """The run `number`, counted from 1, is next."""

    def end(self, outcome: Outcome) -> None:
        """The run that began last has ended, or was recorded before."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def show_traceback(self, text: str) -> None:
        """Show the traceback of a run that has failed."""

    def warn(self, line: str) -> None:
        """Show a warning."""
