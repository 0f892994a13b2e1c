"""Rounds with a deadline: which clients were dropped, recorded so that a round can be repeated without a clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """The treatment of slow participants in one round.

    Attributes:
        seconds: Per-client time limit, measured from that client's own start, even when clients share an actor.
            None: no limit.
        dropped: Participants that are dropped without being trained.
        cause: What happened to these on the virtual clock, to stand behind "they"; "": they were dropped in a run that
            is repeated.
    """

    seconds: float | None = None
    dropped: frozenset[int] = frozenset()
    cause: str = ""


UNLIMITED = Limit()
"""No time limit, and no client dropped beforehand."""


@dataclass
class DroppedClients:
    """The participants dropped in each round: decided by the clock once, and repeated when a round is run again.

    Attributes:
        seconds: `participation.round_deadline`, in seconds; None: no deadline.
        decided: {round: participants that were dropped}, for the rounds that have been completed once.
        hanging: {round: participants that never returned}, for the rounds that could not be completed because of them.
    """

    seconds: float | None = None
    decided: dict[int, frozenset[int]] = field(default_factory=dict)
    hanging: dict[int, frozenset[int]] = field(default_factory=dict)

    def limit(self, round_index: int) -> Limit:
        """The limit of a round that is about to begin: the recorded decision if there is one, else the deadline."""
        if round_index in self.decided:
            return Limit(None, self.decided[round_index])
        return Limit(self.seconds, self.hanging.get(round_index, frozenset()))

    def record(self, round_index: int, dropped: Iterable[int]) -> None:
        """Record which participants were dropped in a completed round."""
        self.decided[round_index] = frozenset(dropped)

    def leave_out_hanging(self, round_index: int, clients: Iterable[int]) -> None:
        """Drop participants that never returned when the round is run again."""
        self.hanging[round_index] = self.hanging.get(round_index, frozenset()) | frozenset(clients)
