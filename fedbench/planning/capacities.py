"""The `participation.capacities` section: how much of the network each client can train."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbench.components.base import Section
from fedbench.errors import ConfigError
from fedbench.randomness import generator

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Clients:
    """What a schedule may know of the clients of the population.

    Attributes:
        budgets: for each client, the most that the layer groups that it trains may cost together; (): no limits.
        costs: for each layer group, what it costs: 1, or its number of parameters; () without budgets.
        gradient_norms: float64 [N, M], for each client and layer group the norm of the gradient that the client
            reported last, NaN where it has reported none; [0, 0] where norms are not reported.
        windows: for each client and each first layer group, the consecutive layer groups from there on, after the last
            from the first again, that the client can train together, ascending; (): by budgets, or no limits.
    """

    budgets: tuple[int, ...] = ()
    costs: tuple[int, ...] = ()
    gradient_norms: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    windows: tuple[tuple[tuple[int, ...], ...], ...] = ()

    @property
    def are_limited(self) -> bool:
        """Whether there is anything that some client cannot train."""
        return bool(self.budgets or self.windows)

    def affords(self, client: int, groups: Sequence[int]) -> bool:
        """Whether a client can train layer groups at the same time."""
        if self.windows:
            return any(set(groups) <= set(window) for window in self.windows[client])
        return not self.budgets or sum(self.costs[group] for group in groups) <= self.budgets[client]


ALL_ALIKE = Clients()
"""Clients without limits that report no norms."""


class CapacitiesSection(Section):
    """How much of the network each client can train in a round.

    Attributes:
        shares: The shares of the network that clients may be able to train; each client is given one by the seed, for
            the whole run. Set shares or clients.
        probabilities: The probability of each share. null: all the same.
        clients: The share of each client, in their order; set shares or clients.
        unit: What a share is of: the number of layer groups (layers), or their bytes (bytes).
        memory: Whether each client trains as many layer groups as the memory of its device (delays.profile) holds, in
            place of shares and clients; participation.capacities=memory is short for it.
    """

    shares: tuple[Share, ...] | None = None
    probabilities: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    clients: tuple[Share, ...] | None = None
    unit: Literal["layers", "bytes"] = "layers"
    memory: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        shares, probabilities, clients = self.shares, self.probabilities, self.clients
        if self.memory:
            for key, values in (("shares", shares), ("probabilities", probabilities), ("clients", clients)):
                if values is not None:
                    raise ValueError(f"{key}={_shown(values)}: has no effect with memory=true; leave it out")
            if self.unit != "layers":
                raise ValueError(f"unit={self.unit}: has no effect with memory=true; leave it out")
            return self
        if bool(shares) == bool(clients):
            raise ValueError(f"shares={_shown(shares)} and clients={_shown(clients)}: set one of the two, or memory")
        if probabilities is None:
            return self
        if shares is None or len(shares) != len(probabilities):
            raise ValueError(
                f"probabilities={_shown(probabilities)}: one is needed for each of shares={_shown(shares)}"
            )
        if abs(sum(probabilities) - 1) > 1e-9:
            raise ValueError(f"probabilities={_shown(probabilities)}: must sum to 1, not {sum(probabilities):g}")
        return self

    def of_clients(self, clients: int, seed: int) -> tuple[float, ...]:
        """The share of each of `clients` clients.

        Raises:
            ConfigError: `clients` has a share for another number of clients.
        """
        if self.shares is not None:
            drawn = generator(seed, "capacities").choice(len(self.shares), clients, p=self.probabilities)
            return tuple(self.shares[int(index)] for index in drawn)
        assert self.clients is not None
        if len(self.clients) != clients:
            raise ConfigError(
                f"participation.capacities.clients: has {len(self.clients)} shares for data.clients={clients}; give "
                "one for each client"
            )
        return self.clients

    def limits(self, clients: int, seed: int, sizes: Sequence[int]) -> Clients:
        """What the clients can train of a network.

        Args:
            clients: N, the number of clients.
            seed: seed of the experiment.
            sizes: for each layer group, its number of parameters.

        Raises:
            ConfigError: a client could train no layer group.
        """
        costs = tuple(sizes) if self.unit == "bytes" else (1,) * len(sizes)
        # Computed on the decimal fraction as written: in binary 0.29 * 100 is just below 29.
        budgets = tuple(int(Fraction(str(share)) * sum(costs)) for share in self.of_clients(clients, seed))
        poorest = min(range(clients), key=lambda client: budgets[client])
        if budgets[poorest] < min(costs):
            raise ConfigError(
                f"participation.capacities: client {poorest} could train no layer group, of which the smallest is "
                f"{min(costs) / sum(costs):.3g} of all {self.unit}; raise its share"
            )
        return Clients(budgets, costs)


def _shown(values: Sequence[float] | None) -> str:
    return "null" if values is None else f"[{', '.join(f'{value:g}' for value in values)}]"
