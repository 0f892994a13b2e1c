"""The participants of a round: the `participation` section of a configuration, and how they are drawn."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.randomness import generator


class ParticipationSection(Section):
    """The clients that take part in a round: all of them, unless a number or a fraction is set.

    Attributes:
        clients_per_round: Number of participants; set clients_per_round or fraction.
        fraction: Share of the population that takes part; set clients_per_round or fraction.
        sampler: How participants are drawn. uniform: at random without replacement, anew in every round.
        round_deadline: Seconds of real time that a participant may train. One that takes longer is dropped from the
            round, which `clients.parquet` records. null: no deadline.
        replay: The `clients.parquet` of a run with a deadline. The clients that were dropped there are dropped again,
            whatever the clock says.
    """

    clients_per_round: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    sampler: Literal["uniform"] = "uniform"
    round_deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    replay: Path | None = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.clients_per_round is not None and self.fraction is not None:
            raise ValueError(
                f"clients_per_round={self.clients_per_round} and fraction={self.fraction}: set one of the two"
            )
        if self.replay is not None and self.round_deadline is None:
            raise ValueError(f"replay={self.replay}: only with round_deadline are participants dropped; leave it out")
        return self

    def size(self, clients: int) -> int:
        """Number of participants out of a population of `clients`."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return self.clients_per_round or clients


def draw_cohort(seed: int, round_index: int, population: int, size: int) -> tuple[int, ...]:
    """Draw the participants of a round uniformly, without replacement.

    Args:
        seed: seed of the experiment.
        round_index: the round, from 0.
        population: number of clients.
        size: number of participants.

    Returns:
        The participants, ascending; all clients where `size` equals `population`.

    >>> draw_cohort(0, 5, population=4, size=4)
    (0, 1, 2, 3)
    """
    if size == population:
        return tuple(range(population))
    drawn = generator(seed, "cohort", round_index).choice(population, size, replace=False)
    return tuple(sorted(int(client) for client in drawn))
