"""Methods whose server rule breaks its contract. Importable by path: "broken_rules:BrokenRule"."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fedbench.algorithms.base import Algorithm, Needs, RuleContext, ServerRule, Values
from fedbench.protocol.model_pool import ModelPool

Breakage = Literal["short", "nested", "nothing", "list", "bool", "nan"]

BREAKAGES: dict[Breakage, Callable[[Values], Any]] = {
    "short": lambda values: values[:-1],
    "nested": lambda values: values[None],
    "nothing": lambda values: None,
    "list": lambda values: values.tolist(),
    "bool": lambda values: values > 0,
    "nan": lambda values: values * np.nan,
}


class BrokenRule(Algorithm):
    """Averages in the first round, and then returns something else.

    Attributes:
        breakage: what is returned.
    """

    name: str = "broken_rules:BrokenRule"
    breakage: Breakage = "short"

    def rule(self) -> ServerRule:
        return Broken(BREAKAGES[self.breakage])


class BrokenPool(Algorithm):
    """Leaves values in the pool that are not finite."""

    name: str = "broken_rules:BrokenPool"

    def rule(self) -> ServerRule:
        return NotFinitePool()


class NotFinitePool(ServerRule):
    own_models = True

    def needs(self, round_index: int) -> Needs:
        return "round"

    def recombine(self, pool: ModelPool, context: RuleContext) -> None:
        pool.vectors["parameters"][0] = np.nan


class FickleNeeds(Algorithm):
    """Asks for the whole round, and from the second round on for something that there is not."""

    name: str = "broken_rules:FickleNeeds"

    def rule(self) -> ServerRule:
        return Fickle()


class Fickle(ServerRule):
    def needs(self, round_index: int) -> Any:
        return "rounds" if round_index else "round"


class Broken(ServerRule):
    def __init__(self, breakage: Callable[[Values], Any]) -> None:
        self._breakage = breakage

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        result: Values = self._breakage(previous + update) if context.round else previous + update
        return result
