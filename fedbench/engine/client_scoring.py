"""When clients' models are scored on the rows that are held out of each client, and what is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedbench.data.base import IntArray
from fedbench.tasks.kinds import TaskName
from fedbench.training.scores import RowsScore


@dataclass(frozen=True)
class ClientScoring:
    """The rounds in which clients' held-out rows are scored.

    Attributes:
        every: rounds from one to the next; 0: there are none.
        rounds: number of rounds of the run; the last one is always among them.
        participants: whether participants are scored as they train, beside all clients after the round.
        task: of the run, whose metric says which clients are the worst.
    """

    every: int = 0
    rounds: int = 0
    participants: bool = True
    task: TaskName = "classification"

    def is_due(self, round_index: int) -> bool:
        """Whether clients are scored in round `round_index`, counted from 0."""
        return bool(self.every) and ((round_index + 1) % self.every == 0 or round_index + 1 == self.rounds)


NOT_SCORED = ClientScoring()
"""No rows are held out of clients."""


@dataclass(frozen=True)
class TrainingScores:
    """The scores of one client's local training on its held-out rows.

    Attributes:
        before: of the model from which its training starts.
        after: of the model that it has trained, before anything is done to it on its way to the server.
        seconds: duration of the scoring.
    """

    before: RowsScore
    after: RowsScore
    seconds: float


def scored_clients(test_rows: Sequence[IntArray]) -> tuple[int, ...]:
    """The clients that have held-out rows, ascending.

    Args:
        test_rows: for each client, its held-out rows.
    """
    return tuple(client for client, rows in enumerate(test_rows) if len(rows))


@dataclass(frozen=True)
class ClientScoringPhase:
    """The scores of the new global model on the clients' held-out rows, after a round.

    Attributes:
        scores: {client: score}, for every client that has such rows.
        transport_bytes: bytes moved between processes.
    """

    scores: Mapping[int, RowsScore]
    transport_bytes: int


NO_CLIENT_SCORES = ClientScoringPhase({}, 0)
"""The clients are not scored after this round."""
