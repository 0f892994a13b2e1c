"""What a reader must know before believing a figure."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "left out", "note"]
RANKS: tuple[Severity, ...] = ("warning", "left out", "note")


@dataclass(frozen=True)
class Problem:
    """One thing, in words.

    Attributes:
        severity: "warning": figures may mislead; "left out": a run does not count; "note": good to know.
        text: one line.
    """

    severity: Severity
    text: str

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return RANKS.index(self.severity)


def warn(text: str) -> Problem:
    """Figures may mislead."""
    return Problem("warning", text)


def left_out(text: str) -> Problem:
    """A run does not count."""
    return Problem("left out", text)


def note(text: str) -> Problem:
    """Good to know."""
    return Problem("note", text)
