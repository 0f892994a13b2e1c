"""Clients whose messages a run keeps for later analysis, and such a message."""

from dataclasses import dataclass

from fedbench.protocol.layout import Vector


@dataclass(frozen=True)
class KeptClients:
    """The clients whose messages are kept for later analysis, and in which rounds.

    Attributes:
        rounds: the rounds, from 0.
        clients: the clients.
    """

    rounds: frozenset[int] = frozenset()
    clients: frozenset[int] = frozenset()

    def of_round(self, round_index: int) -> frozenset[int]:
        """The clients whose messages of a round are kept."""
        return self.clients if round_index in self.rounds else frozenset()


NOTHING_KEPT = KeptClients()
"""No message is kept."""


@dataclass(frozen=True)
class KeptMessage:
    """What one client sent in a round, as the server reads it.

    Attributes:
        client: number of the client.
        samples: number of its training samples.
        steps: minibatches that it trained on.
        parts: numbers of the parts that it sent.
        update: float32, for these parts, one after the other: what it sent minus the values that it started from; in
            a method's further channels what it sent.
    """

    client: int
    samples: int
    steps: int
    parts: tuple[int, ...]
    update: Vector
