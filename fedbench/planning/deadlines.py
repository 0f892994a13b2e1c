"""Rounds with a deadline: whom the clock dropped, kept so that a run can be done again without a clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """What a round does with slow participants.

    Attributes:
        seconds: that a participant may train, each counted from its own beginning, as if all had a machine of
            their own; None: without end.
        dropped: participants that are not trained at all.
    """

    seconds: float | None = None
    dropped: frozenset[int] = frozenset()


UNLIMITED = Limit()


@dataclass
class DroppedClients:
    """Who was dropped in which round: decided by the clock once, and followed whenever the round is done again.

    Attributes:
        seconds: `participation.round_deadline`.
        decided: {round: participants dropped}, of rounds that were done once.
        hanging: {round: participants}, of rounds that were not done, because these did not come back at all.
    """

    seconds: float | None = None
    decided: dict[int, frozenset[int]] = field(default_factory=dict)
    hanging: dict[int, frozenset[int]] = field(default_factory=dict)

    def limit(self, round_index: int) -> Limit:
        """Of a round that is about to begin."""
        if round_index in self.decided:
            return Limit(None, self.decided[round_index])
        return Limit(self.seconds, self.hanging.get(round_index, frozenset()))

    def record(self, round_index: int, dropped: Iterable[int]) -> None:
        """Keep what a finished round came to."""
        self.decided[round_index] = frozenset(dropped)

    def leave_out_hanging(self, round_index: int, clients: Iterable[int]) -> None:
        """Leave these out when the round is done again."""
        self.hanging[round_index] = self.hanging.get(round_index, frozenset()) | frozenset(clients)
