"""A method made of one method's local objective and another's server rule."""

from collections.abc import Sequence
from typing import Any

from pydantic import SerializeAsAny

from fedbench.algorithms.arrivals import AsyncAlgorithm
from fedbench.algorithms.base import Algorithm, Objective, ServerRule
from fedbench.errors import ConfigError
from fedbench.planning.exchange import Exchange

NO_SERVER_RULE = "is a method of its own, not a server rule alone"
"""The reason why a method cannot be given as `server`, to stand behind its name."""


def is_server_rule(method: type[Algorithm]) -> bool:
    """Whether a method differs from FedAvg at the server alone, so that it can be given as `server`."""
    federates = method.has_global_model and not method.pools_rows
    return federates and method.objective is Algorithm.objective and method.scales is Algorithm.scales


class Crossed(Algorithm):
    """A local objective crossed with another method's server rule.

    Attributes:
        local: the method that gives the objective, and with it what clients keep and send.
        server: the method that gives the server rule and the weights.
    """

    local: SerializeAsAny[Algorithm]
    server: SerializeAsAny[Algorithm]

    @classmethod
    def of(cls, local: Algorithm, server: Algorithm | None) -> Algorithm:
        """The crossed method, or `local` itself where `server` is None.

        Raises:
            ConfigError: the two cannot be combined; the message names them and the reason.
        """
        if server is None:
            return local
        pair = f"algorithm.name={local.name} with server.name={server.name}"
        if local.pools_rows or not local.has_global_model:
            raise ConfigError(f"{pair}: {local.name} has no updates to combine; leave server out")
        if local.rule_is_special():
            raise ConfigError(f"{pair}: the server rule of {local.name} is a part of the method; leave server out")
        if not is_server_rule(type(server)):
            raise ConfigError(f"{pair}: {server.name} {NO_SERVER_RULE}; set algorithm")
        if isinstance(server, AsyncAlgorithm) and local.objective().channels:
            raise ConfigError(
                f"{pair}: {local.name} sends {', '.join(local.objective().channels)} beside the parameters, which is "
                "averaged over a round, and arrivals have none; choose another rule"
            )
        if server.rule().own_models and local.objective().channels:
            raise ConfigError(
                f"{pair}: {local.name} sends {', '.join(local.objective().channels)} beside the parameters, which a "
                "pool of models does not average; choose another rule"
            )
        if local.scales_are_special() and (isinstance(server, AsyncAlgorithm) or not server.sums()):
            raise ConfigError(
                f"{pair}: {local.name} gives each update a factor in their mean, and {server.name} takes no such mean; "
                "choose another rule"
            )
        return cls(name=f"{local.name}+{server.name}", local=local, server=server)

    def objective(self) -> Objective:
        return self.local.objective()

    def objective_is_special(self) -> bool:
        return self.local.objective_is_special()

    def rule(self) -> ServerRule:
        return self.server.rule()

    def exchange(self) -> Exchange:
        special = type(self.local).exchange is not Algorithm.exchange
        return self.local.exchange() if special else self.server.exchange()

    def weight(self, samples: int) -> float:
        # An objective whose method gives every client the same weight (SCAFFOLD) relies on it.
        return (
            self.server.weight(samples) if self.local.weight(2) != self.local.weight(1) else self.local.weight(samples)
        )

    def scales(self, weights: Sequence[float], steps: Sequence[int]) -> tuple[float, ...]:
        return self.local.scales(weights, steps)

    def scales_are_special(self) -> bool:
        return self.local.scales_are_special()

    def check(self, config: Any) -> None:
        self.local.check(config)
        self.server.check(config)


def asynchronous_part(method: Algorithm) -> AsyncAlgorithm | None:
    """The asynchronous method that `method` is, or takes its server rule from; None for a synchronous method."""
    rule = method.server if isinstance(method, Crossed) else method
    return rule if isinstance(rule, AsyncAlgorithm) else None
