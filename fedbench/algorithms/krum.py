"""Krum and multi-Krum: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017 (arXiv 1703.02757), sections 4 and 5.

Of n participants at most f are Byzantine. The score of participant i, with i -> j for the n - f - 2 others whose
updates are closest to its own, is

    s(i) = sum over i -> j of ||u_i - u_j||^2,        n >= 2 f + 3,

over the whole model: with a partial schedule over the layer groups that were trained. Krum takes the update with the
smallest score, multi-Krum the mean of the m updates with the smallest scores; of equal scores that of the client with
the smallest number. The paper chooses among gradients, here it is among updates of local training, in which every
participant counts the same, whatever its number of samples.

The same clients' running statistics are taken. A method's further channels stay averaged, since SCAFFOLD's c is the
mean of what the clients keep.
"""

import math
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from fedbench.algorithms.base import Algorithm, Needs, RoundUpdates, RuleContext, ServerRule, Values
from fedbench.errors import ConfigError, RunError


class Krum(Algorithm):
    """The update that is closest to its neighbours (Blanchard et al., NeurIPS 2017).

    Attributes:
        f: number of participants of a round that may be Byzantine. null: ceil(byzantine_share n) of n participants.
        byzantine_share: share of the participants that may be Byzantine, where f does not say their number.
    """

    paper: ClassVar[str] = "Blanchard et al., NeurIPS 2017, arXiv 1703.02757"
    refuses: ClassVar[str] = "fewer than 2 f + 3 participants; clients that send different layer groups"
    name: str = "krum"
    f: int | None = Field(default=None, ge=0)
    byzantine_share: float = Field(default=0.2, ge=0, lt=0.5)

    def rule(self) -> ServerRule:
        return Selection(self)

    def weight(self, samples: int) -> float:
        return 1.0

    def byzantine(self, clients: int) -> int:
        """f, the number of `clients` participants that may be Byzantine."""
        # Computed on the decimal fraction as written: in binary 0.07 * 100 is just above 7.
        return math.ceil(Fraction(str(self.byzantine_share)) * clients) if self.f is None else self.f

    def chosen(self, clients: int) -> int:
        """The number of `clients` updates whose mean is taken."""
        return 1

    def problem(self, clients: int) -> str | None:
        """The reason why the rule cannot choose among `clients` updates, to stand behind its name; None where it can.

        Args:
            clients: n, the number of updates.
        """
        f = self.byzantine(clients)
        if clients < 2 * f + 3:
            return (
                f"is robust against f={f} Byzantine clients among 2 f + 3 = {2 * f + 3} participants or more, not "
                f"{clients}; lower f or byzantine_share, or let more clients take part"
            )
        return None

    def check(self, config: Any) -> None:
        """Refuse too few participants, and those that send different layer groups."""
        if (problem := self.problem(config.slots())) is not None:
            raise ConfigError(f"{key_of(config)}.name={self.name}: {problem}")
        refuse_other_groups(self.name, config)


class MultiKrum(Krum):
    """The mean of the updates that are closest to their neighbours (Blanchard et al., NeurIPS 2017).

    Attributes:
        m: number of updates whose mean is taken; 1 is Krum. null: n - f of n participants.
    """

    name: str = "multi-krum"
    m: int | None = Field(default=None, ge=1)

    def chosen(self, clients: int) -> int:
        return clients - self.byzantine(clients) if self.m is None else self.m

    def problem(self, clients: int) -> str | None:
        if self.m is not None and self.m > clients:
            return f"cannot take the mean of m={self.m} of {clients} updates; lower m"
        return super().problem(clients)


class Selection(ServerRule):
    """The server rule of Krum and multi-Krum: the mean of the chosen clients' updates and running statistics."""

    def __init__(self, method: Krum) -> None:
        self._method = method

    def needs(self, round_index: int) -> Needs:
        return "round"

    def client_weights(self, updates: RoundUpdates, context: RuleContext) -> Values:
        method, clients = self._method, len(updates)
        if (problem := method.problem(clients)) is not None:
            raise RunError(f"round {context.round + 1}: {method.name} {problem}")
        scores = krum_scores(updates.squared_distances(), method.byzantine(clients))
        weights = np.zeros(clients)
        weights[np.argsort(scores, kind="stable")[: method.chosen(clients)]] = 1 / method.chosen(clients)
        return weights


def krum_scores(squared_distances: Values, f: int) -> Values:
    """float64 [n], s(i): the sum of the n - f - 2 smallest squared distances of each update to the others.

    Args:
        squared_distances: float64 [n, n], symmetric, ||u_i - u_j||^2.
        f: number of Byzantine clients.
    """
    others = squared_distances + np.diag(np.full(len(squared_distances), np.inf))
    scores: Values = np.sort(others, axis=1)[:, : len(others) - f - 2].sum(axis=1)
    return scores


def key_of(config: Any) -> str:
    """The key of the configuration, an `ExperimentConfig`, that has the server rule."""
    return "algorithm" if config.server is None else "server"


def refuse_other_groups(name: str, config: Any) -> None:
    """Refuse schedules and exchanges by which clients send different layer groups, or in some rounds none.

    Args:
        name: of the method that compares whole updates, which then have no distance.
        config: the whole `ExperimentConfig`.

    Raises:
        ConfigError: names the schedule or the exchange.
    """
    from fedbench.planning.exchange import Rotating

    exchange = config.chosen_exchange
    for key, part, differs in (
        ("schedule", config.schedule, not config.schedule.same_for_all),
        ("exchange", exchange, exchange.keeps_layers or isinstance(exchange, Rotating)),
    ):
        if differs:
            raise ConfigError(
                f"{key_of(config)}.name={name} with {key}.name={part.name}: compares whole updates, and not all "
                f"clients send the same layer groups in every round; choose another {key}, or server=median"
            )
