"""How long a client's work takes, and how many work at once: the `delays` section of asynchronous runs.

On the virtual clock every service time is drawn from the seed, the client and the number of works that it has had, so
that the order of arrivals is known before anything is computed and depends on nothing that the machine does.
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
    """Of a service time, with mean 1."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> float:
        """One service time, greater than 0."""


class Constant(Distribution):
    """Every work takes the same time."""

    name: str = "constant"

    def draw(self, rng: np.random.Generator) -> float:
        return 1.0


class Gamma(Distribution):
    """Gamma-distributed, as in the simulations of asynchronous SGD that SMEGA2 and others use.

    Attributes:
        cv: coefficient of variation, standard deviation / mean.
    """

    name: str = "gamma"
    cv: float = Field(default=0.25, gt=0, le=10)

    def draw(self, rng: np.random.Generator) -> float:
        return max(rng.gamma(1 / self.cv**2, self.cv**2), 1e-9)


class LogNormal(Distribution):
    """Log-normal: now and then a work takes several times as long.

    Attributes:
        cv: coefficient of variation, standard deviation / mean.
    """

    name: str = "lognormal"
    cv: float = Field(default=0.5, gt=0, le=10)

    def draw(self, rng: np.random.Generator) -> float:
        variance = math.log1p(self.cv**2)
        return float(rng.lognormal(-variance / 2, math.sqrt(variance)))


class Pareto(Distribution):
    """Pareto: a heavy tail of stragglers.

    Attributes:
        alpha: tail index; the smaller, the heavier. The variance is finite above 2.
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
"""What a clock that does not draw its times has no use for."""


class DelaysSection(Section):
    """Of asynchronous runs: who works when, for how long.

    Attributes:
        clock: virtual: service times drawn from the seed, the same result on any machine; wall: updates applied as they
            come, and recorded for replay.
        replay: events.parquet of a run, whose order of arrivals is followed instead of a clock.
        concurrency: K, works in flight; None: every client has one. A freed slot goes to a newly drawn client.
        work: what a client sends: the gradient of one minibatch, or the delta of its local training; None: delta where
            local.epochs or local.steps is set or the method takes nothing else.
        arrivals_per_round: updates that make one row of the records, and one round of the schedule and the learning
            rate; None: K; or
        seconds_per_round: seconds of the clock that do.
        mean_seconds: mean service time of a full update by a client of mean size; other works take time in proportion
            to their FLOPs.
        distribution: of the service times.
        slow_fraction, slow_factor: this share of the clients takes this many times as long.
        bandwidth: bytes per second of every client, up and down; None: communication takes no time.
        drop_rate: probability that a client drops out while it works; what it did is lost.
        away_seconds: until its slot is free again, from the time at which the work would have been done.
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
        """What differs from the defaults."""
        fields = type(self).model_fields
        defaults = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
        defaults["distribution"] = Gamma()
        return {key: getattr(self, key) for key in fields if getattr(self, key) != defaults[key]}

    def slow_clients(self, seed: int, clients: int) -> frozenset[int]:
        """Which of the population are slow."""
        count = round(self.slow_fraction * clients)
        return frozenset(int(client) for client in generator(seed, "slow clients").permutation(clients)[:count])
