"""Methods whose server rule breaks its contract. Importable by path: "broken_rules:BrokenRule"."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fedbench.algorithms.base import Algorithm, RuleContext, ServerRule, Values

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
    """Averages, and then returns something else.

    Attributes:
        breakage: what is returned.
    """

    name: str = "broken_rules:BrokenRule"
    breakage: Breakage = "short"

    def rule(self) -> ServerRule:
        return Broken(BREAKAGES[self.breakage])


class Broken(ServerRule):
    def __init__(self, breakage: Callable[[Values], Any]) -> None:
        self._breakage = breakage

    def combine(self, previous: Values, update: Values, context: RuleContext) -> Values:
        result: Values = self._breakage(previous + update)
        return result
