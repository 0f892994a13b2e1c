"""What is asked and answered where clients' models are compared with the global one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probing:
    """How clients' models are compared with the model that the server makes of them.

    Attributes:
        cka: rounds, from 0, after which the features of each layer group are compared.
        barrier: rounds, from 0, after which the loss on the line between the models is looked at.
        samples: rows of the test split that are used.
        points: models on each line, the two at its ends included.
    """

    cka: frozenset[int] = frozenset()
    barrier: frozenset[int] = frozenset()
    samples: int = 0
    points: int = 0

    def is_due(self, round_index: int) -> bool:
        """Whether anything is compared after a round."""
        return round_index in self.cka | self.barrier


NOT_PROBED = Probing()
"""Nothing is compared."""


@dataclass(frozen=True)
class ClientProbe:
    """A client's model compared with the new global model.

    Attributes:
        client: number of the client.
        similarities: {layer group: linear CKA of its features}; empty where they are not compared.
        losses: {layer group: losses at evenly spaced places on the line that moves this group alone from the client's
            values to the global ones}; -1: all groups together. Empty where no line is looked at.
    """

    client: int
    similarities: dict[int, float]
    losses: dict[int, tuple[float, ...]]
