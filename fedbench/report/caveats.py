"""What a reader must know before believing a figure."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "left out", "note"]
RANKS: tuple[Severity, ...] = ("warning", "left out", "note")


@dataclass(frozen=True)
class Caveat:
    """One thing that a reader must know, in words.

    Attributes:
        severity: "warning": figures may mislead; "left out": a run does not count; "note": good to know.
        text: one line.
    """

    severity: Severity
    text: str

    @property
    def rank(self) -> int:
        """Its place in `RANKS`, 0 for the worst."""
        return RANKS.index(self.severity)


def warn(text: str) -> Caveat:
    """A caveat that figures may mislead."""
    return Caveat("warning", text)


def left_out(text: str) -> Caveat:
    """A caveat that a run does not count."""
    return Caveat("left out", text)


def note(text: str) -> Caveat:
    """A caveat that is good to know."""
    return Caveat("note", text)
