"""The `delays` section: how long clients' work takes, on their devices or by chance, and when they are there.

On the virtual clock of an asynchronous run each service time is a function of the seed, the client and its task. The
order of arrivals is therefore known before anything is computed, and does not depend on the machine. A run in rounds
has a virtual clock where `profile` says on what devices its clients are.
"""

import math
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, SerializeAsAny, model_validator

from fedbench.components.base import Component, Section
from fedbench.components.catalogue import DEFAULTS, checked
from fedbench.planning.availability import Availability, Presence
from fedbench.planning.profiles import ProfileSection
from fedbench.planning.uplinks import UplinkGroups
from fedbench.planning.worlds import World
from fedbench.randomness import generator


class Distribution(Component):
    """Distribution of service times, with mean 1; `DelaysSection.mean_seconds` scales it."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> float:
        """Draw one service time, greater than 0."""


class Constant(Distribution):
    """Every task takes the same time."""

    name: str = "constant"

    def draw(self, rng: np.random.Generator) -> float:
        return 1.0


class Gamma(Distribution):
    """Gamma-distributed, as in the simulations of asynchronous SGD that SMEGA2 and others use.

    Attributes:
        cv: coefficient of variation, the standard deviation divided by the mean.
    """

    name: str = "gamma"
    cv: float = Field(default=0.25, ge=1e-6, le=10)

    def draw(self, rng: np.random.Generator) -> float:
        return max(rng.gamma(1 / self.cv**2, self.cv**2), 1e-9)


class LogNormal(Distribution):
    """Log-normal: now and then a task takes several times as long.

    Attributes:
        cv: coefficient of variation, the standard deviation divided by the mean.
    """

    name: str = "lognormal"
    cv: float = Field(default=0.5, ge=1e-6, le=10)

    def draw(self, rng: np.random.Generator) -> float:
        variance = math.log1p(self.cv**2)
        return float(rng.lognormal(-variance / 2, math.sqrt(variance)))


class Pareto(Distribution):
    """Pareto: a heavy tail of stragglers.

    Attributes:
        alpha: tail index; the smaller it is, the heavier the tail. The variance is finite above 2.
    """

    name: str = "pareto"
    alpha: float = Field(default=3.0, gt=1)

    def draw(self, rng: np.random.Generator) -> float:
        return float((1 + rng.pareto(self.alpha)) * (self.alpha - 1) / self.alpha)


AnyDistribution = Annotated[SerializeAsAny[Distribution], checked("delay", Distribution)]

AnyAvailability = Annotated[SerializeAsAny[Availability], checked("availability", Availability)]

IN_ROUNDS_TOO = ("profile", "availability", "uplink_groups", "deadline")
"""Keys that have an effect in runs that work in rounds, too."""

NEEDS_PROFILE = ("availability", "uplink_groups", "deadline")
"""Keys that need a clock that devices and links give."""

NO_PROFILE = "no profile"

INSTEAD_OF_PROFILE = ("distribution", "mean_seconds", "slow_fraction", "slow_factor", "bandwidth")
"""Keys for service times that are drawn, or follow from one bandwidth, which a profile replaces."""

VIRTUAL_ONLY = (
    "profile",
    "availability",
    "distribution",
    "mean_seconds",
    "slow_fraction",
    "slow_factor",
    "bandwidth",
    "drop_rate",
    "away_seconds",
)
"""Keys that have an effect only where service times are drawn, on the virtual clock."""


class DelaysSection(Section):
    """Timing: on what devices clients are and when they are there; the tasks of an asynchronous run.

    Attributes:
        clock: virtual: service times drawn from the seed, the same result on any machine; wall: updates applied as they
            come, and recorded for replay.
        replay: path of a run's events.parquet, whose order of arrivals is repeated instead of following a clock.
        concurrency: K, the number of tasks in flight; None: one for every client. A free slot goes to a newly drawn
            client.
        work: what a client sends: the gradient of one minibatch, or the delta of its local training; None: delta where
            local.epochs or local.steps is set or the method takes nothing else.
        arrivals_per_round: updates that make one row of the records, and one round of the schedule and the learning
            rate; None: K, unless seconds_per_round is set.
        seconds_per_round: seconds of the clock that make a round instead.
        mean_seconds: mean service time, in seconds, of a full update by a client of mean size; other tasks take time in
            proportion to their FLOPs.
        distribution: distribution of the service times.
        slow_fraction: share of the clients that are slow.
        slow_factor: how many times as long a slow client takes.
        bandwidth: bytes per second of every client, up and down; None: communication takes no time.
        drop_rate: probability that a client drops out during a task, whose result is then lost.
        away_seconds: seconds until the slot of a lost task is free again, from the time at which it would have ended.
        profile: device and link of each client, DEVICE+LINK, by which its bytes and FLOPs take virtual seconds and
            joules; in place of the distribution in an asynchronous run, and in rounds, too. A profile for all, a
            mixture, or one for each client. None: rounds have no virtual time.
        availability: when clients are on, on the virtual clock. Those that are off are not drawn, those that go off
            during their work are lost; a round waits until there are enough clients. None: always.
        uplink_groups: clients that share the bandwidth of one uplink within a round. None: none do.
        deadline: virtual seconds after which a round ends; participants that are not done are dropped. None: a round
            waits for its slowest participant.
    """

    clock: Literal["virtual", "wall"] = "virtual"
    replay: Path | None = None
    concurrency: int | None = Field(default=None, ge=1)
    work: Literal["gradient", "delta"] | None = None
    arrivals_per_round: int | None = Field(default=None, ge=1)
    seconds_per_round: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    mean_seconds: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    distribution: AnyDistribution = Field(default=DEFAULTS["delay"], validate_default=True)
    slow_fraction: float = Field(default=0.0, ge=0, le=1)
    slow_factor: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    bandwidth: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    drop_rate: float = Field(default=0.0, ge=0, le=0.9)
    away_seconds: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    profile: ProfileSection | None = None
    availability: AnyAvailability | None = None
    uplink_groups: UplinkGroups | None = None
    deadline: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if self.arrivals_per_round is not None and self.seconds_per_round is not None:
            raise ValueError(
                f"arrivals_per_round={self.arrivals_per_round} and seconds_per_round={self.seconds_per_round}: "
                "set one of the two"
            )
        without: dict[str, str] = dict.fromkeys(NEEDS_PROFILE if self.profile is None else (), NO_PROFILE)
        if self.profile is not None:
            without |= dict.fromkeys(INSTEAD_OF_PROFILE, "profile")
        if self.clock == "wall":
            without = dict.fromkeys(VIRTUAL_ONLY, "clock=wall") | without
        elif not self.slow_fraction:
            without["slow_factor"] = "slow_fraction=0"
        if self.clock == "virtual" and not self.drop_rate:
            without["away_seconds"] = "drop_rate=0"
        for key, reason in without.items():
            if key in self.changed():
                if reason == NO_PROFILE:
                    raise ValueError(f"{self.shown(key)} has no effect without delays.profile; set that, too")
                raise ValueError(f"{self.shown(key)} has no effect with {reason}; leave it out")
        return self

    def changed(self) -> dict[str, Any]:
        """{key: value} of the keys that differ from their defaults."""
        fields = type(self).model_fields
        defaults = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
        defaults["distribution"] = Gamma()
        return {key: getattr(self, key) for key in fields if getattr(self, key) != defaults[key]}

    def shown(self, key: str) -> str:
        """A key with its value, for messages: the name of a part, and "..." for a mapping."""
        value = getattr(self, key)
        return f"{key}=..." if isinstance(value, Section) else f"{key}={getattr(value, 'name', value)}"

    def world(self, seed: int, clients: int) -> World | None:
        """The devices, links and times of `clients` clients; None where no profile is set.

        Raises:
            ConfigError: a profile is not known, or lists are for another number of clients.
        """
        if self.profile is None:
            return None
        presence = None
        if self.availability is not None:
            self.availability.check(clients)
            presence = Presence(self.availability, clients, seed)
        groups = self.uplink_groups
        return World(
            self.profile.of_clients(clients, seed),
            presence,
            None if groups is None else groups.of_clients(clients, seed),
            math.inf if groups is None else groups.bytes_per_second,
            self.deadline,
        )

    def slow_clients(self, seed: int, clients: int) -> frozenset[int]:
        """The slow ones among `clients` clients, drawn from the seed."""
        count = round(self.slow_fraction * clients)
        return frozenset(int(client) for client in generator(seed, "slow clients").permutation(clients)[:count])
