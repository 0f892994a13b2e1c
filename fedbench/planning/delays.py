"""The `delays` section of asynchronous runs: how many tasks run at once, and how long each of them takes.

On the virtual clock each service time is a function of the seed, the client and the number of tasks that it has had.
The order of arrivals is therefore known before anything is computed, and does not depend on the machine.
"""

import math
from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from fedbench.components.base import Component, Section
from fedbench.components.catalogue import DEFAULTS, make_component
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


AnyDistribution = Annotated[
    SerializeAsAny[Distribution], BeforeValidator(partial(make_component, "delay", Distribution))
]

VIRTUAL_ONLY = (
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
    """Timing of an asynchronous run: how many tasks run at once, and how long each takes.

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

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if self.arrivals_per_round is not None and self.seconds_per_round is not None:
            raise ValueError(
                f"arrivals_per_round={self.arrivals_per_round} and seconds_per_round={self.seconds_per_round}: "
                "set one of the two"
            )
        without: dict[str, str] = {}
        if self.clock == "wall":
            without = dict.fromkeys(VIRTUAL_ONLY, "clock=wall")
        elif not self.slow_fraction:
            without["slow_factor"] = "slow_fraction=0"
        if self.clock == "virtual" and not self.drop_rate:
            without["away_seconds"] = "drop_rate=0"
        for key, reason in without.items():
            if key in self.changed():
                value = getattr(self, key)
                shown = value.name if isinstance(value, Distribution) else value
                raise ValueError(f"{key}={shown} has no effect with {reason}; leave it out")
        return self

    def changed(self) -> dict[str, Any]:
        """{key: value} of the keys that differ from their defaults."""
        fields = type(self).model_fields
        defaults = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
        defaults["distribution"] = Gamma()
        return {key: getattr(self, key) for key in fields if getattr(self, key) != defaults[key]}

    def slow_clients(self, seed: int, clients: int) -> frozenset[int]:
        """The slow ones among `clients` clients, drawn from the seed."""
        count = round(self.slow_fraction * clients)
        return frozenset(int(client) for client in generator(seed, "slow clients").permutation(clients)[:count])
