"""The `participation` section of a configuration: how many clients take part in a round, which, and how honest."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from fedbench.components.base import Section
from fedbench.components.catalogue import DEFAULTS, checked
from fedbench.planning.capacities import ALL_ALIKE, CapacitiesSection, Clients
from fedbench.planning.samplers import Sampler
from fedbench.protocol.attacks import Attack
from fedbench.protocol.layout import ParameterLayout

AnySampler = Annotated[SerializeAsAny[Sampler], checked("sampler", Sampler)]
AnyAttack = Annotated[SerializeAsAny[Attack], checked("attack", Attack)]


def _by_memory(value: object) -> object:
    """The word `memory` as the section that it is short for."""
    return {"memory": True} if value == "memory" else value


class ParticipationSection(Section):
    """The clients that take part in a round: all of them, unless a number or a fraction is set.

    Attributes:
        clients_per_round: Number of participants; set clients_per_round or fraction.
        fraction: Share of the population that takes part; set clients_per_round or fraction.
        sampler: How participants are drawn.
        byzantine: What some of the clients do to harm the run. null: all clients are honest.
        capacities: How much of the network each client can train in a round, for schedules that keep to it; memory: as
            much as the memory of its device holds. null: all.
        round_deadline: Seconds of real time that a participant may train. One that takes longer is dropped from the
            round, which `clients.parquet` records. null: no deadline.
        replay: The `clients.parquet` of a run with a deadline. The clients that were dropped there are dropped again,
            whatever the clock says.
    """

    clients_per_round: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    sampler: AnySampler = Field(default=DEFAULTS["sampler"], validate_default=True)
    byzantine: AnyAttack | None = None
    capacities: Annotated[CapacitiesSection | None, BeforeValidator(_by_memory)] = None
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

    def attackers(self, clients: int, seed: int) -> frozenset[int]:
        """The Byzantine ones among `clients` clients, drawn from the seed."""
        return frozenset() if self.byzantine is None else self.byzantine.attackers(clients, seed)

    @property
    def by_memory(self) -> bool:
        """Whether the memory of its device decides what a client trains."""
        return self.capacities is not None and self.capacities.memory

    def limits(self, clients: int, seed: int, layout: ParameterLayout) -> Clients:
        """What the clients can train of a network, as for `CapacitiesSection.limits`; by memory: not said here."""
        if self.capacities is None or self.by_memory:
            return ALL_ALIKE
        return self.capacities.limits(clients, seed, [layout.group_size(group) for group in layout.all_groups])

    def size(self, clients: int) -> int:
        """Number of participants out of a population of `clients`."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return self.clients_per_round or clients
