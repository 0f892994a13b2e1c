"""What a server rule knows of the round that it combines."""

from dataclasses import dataclass

import numpy as np

from fedbench.algorithms.round_updates import Values
from fedbench.protocol.layout import ParameterLayout
from fedbench.randomness import generator


@dataclass(frozen=True)
class RuleContext:
    """A round, as the server rule sees it.

    Attributes:
        layout: layout of the parameters.
        groups: the layer groups that the rule is applied to, ascending; arrays hold them one after the other.
        round: round number, from 0.
        participants: |S|, the number of clients whose updates of these groups were accepted.
        population: N, the number of clients in all.
        seed: seed of the run.
    """

    layout: ParameterLayout
    groups: tuple[int, ...]
    round: int
    participants: int
    population: int
    seed: int = 0

    def gather(self, vector: Values) -> Values:
        """float64 [n], the values of `groups` in a float64 [P] vector that the rule keeps."""
        return np.concatenate([vector[piece] for piece in self.layout.ranges(self.groups)])

    def scatter(self, values: Values, vector: Values) -> None:
        """Write float64 [n] values into the places of `groups` in a float64 [P] vector that the rule keeps."""
        start = 0
        for piece in self.layout.ranges(self.groups):
            length = piece.stop - piece.start
            vector[piece] = values[start : start + length]
            start += length

    def generator(self, purpose: str) -> np.random.Generator:
        """A random generator that depends on the run's seed, `purpose` and the round alone."""
        return generator(self.seed, purpose, self.round)
